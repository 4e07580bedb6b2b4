"""Attention that does only the work that its mask allows, on a CPU (DALL-E, appendix B.1).

An image position looks at the whole caption and at few other codes. Taken in the order of a
pattern's lines (rows, or columns for the column pattern), those lie in a short run before it. So
the codes are cut into blocks; a block looks at the caption and at one window of codes that ends
with the block itself, and only inside that window is a mask needed.

Both parts go through torch's flash kernel and are joined by their log-sum-exp. Its backward pass
takes output and log-sum-exp as arguments: given the joined ones, it is exact for each part.

Shapes: B samples, A heads, S caption positions, N codes, E features a head, Q codes a block, K
codes a window, b blocks, G = A·b.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model_zoo.masks import Kind, stream_mask

# A block holds at least so many codes: shorter ones leave the kernel idle.
_LEAST_BLOCK = 64
# Below so many positions masked attention is as fast: what is saved is less than what is copied.
_LEAST_POSITIONS = 256

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class MaskedAttention(nn.Module):
    """Attention under the mask of one pattern; blocked where that is faster."""

    mask: Tensor

    def __init__(self, kind: Kind, caption: int, height: int, width: int, kernel: int) -> None:
        super().__init__()
        self.caption = caption
        self.blocks = None
        with torch.device("cpu"):  # also of a network that is only counted, on the meta device
            mask = stream_mask(kind, caption, height, width, kernel)
            if kind != "full" and len(mask) >= _LEAST_POSITIONS:
                self.blocks = Blocks(kind, mask[caption:, caption:], height, width)
        # The last code is never an input.
        self.register_buffer("mask", mask[:-1, :-1], persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k' / sqrt(E)) v under the mask, [B, A, S + N - 1, E] of the same each."""
        if self.blocks is None or q.device.type != "cpu" or q.shape[2] != len(self.mask):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        queries, keys, values = (x[:, :, : self.caption] for x in (q, k, v))
        codes = [x[:, :, self.caption :] for x in (q, k, v)]
        text = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return torch.cat([text, self.blocks(*codes, keys, values)], dim=2)


class Blocks(nn.Module):
    """The image positions' part, cut into blocks."""

    order: Tensor
    back: Tensor
    bias: Tensor

    def __init__(self, kind: Kind, mask: Tensor, height: int, width: int) -> None:
        super().__init__()
        line = height if kind == "column" else width
        order = torch.arange(height * width)
        if kind == "column":
            order = order.view(height, width).t().flatten()
        self.codes = len(order)
        self.in_lines = kind != "column"
        self.size = line * -(-_LEAST_BLOCK // line)
        self.count = -(-self.codes // self.size)
        mask = mask[order][:, order]
        self.before = _reach(mask, self.size)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("bias", self._bias(mask), persistent=False)

    def _bias(self, mask: Tensor) -> Tensor:
        """0 where allowed and -inf elsewhere, [b, Q, K]."""
        padded = self.count * self.size
        whole = F.pad(mask, (self.before, padded - self.codes, 0, padded - self.codes))
        # Padded positions look at themselves, so that no sum is empty.
        rows = torch.arange(self.codes, padded)
        whole[rows, rows + self.before] = True
        window = self.before + self.size
        starts = range(0, padded, self.size)
        parts = [whole[i : i + self.size, i : i + window] for i in starts]
        allowed = torch.stack(parts)
        return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[B, A, n, E] of the codes' q, k, v [B, A, n, E], n at most N, and the caption's keys and
        values [B, A, S, E]."""
        length = q.shape[2]
        lined = [self._to_lines(x) for x in (q, k, v)]
        bias = self.bias.to(q.dtype).repeat(q.shape[1], 1, 1)[None]
        out = _Joined.apply(*lined, keys, values, bias, self.before, self.size)
        return self._from_lines(out, length)

    def _to_lines(self, x: Tensor) -> Tensor:
        """[B, A, n, E] to [B, A, b·Q, E] in the order of lines."""
        if self.in_lines:
            return F.pad(x, (0, 0, 0, self.count * self.size - x.shape[2])).contiguous()
        lined = F.pad(x, (0, 0, 0, self.codes - x.shape[2]))[:, :, self.order]
        return F.pad(lined, (0, 0, 0, self.count * self.size - self.codes)).contiguous()

    def _from_lines(self, x: Tensor, length: int) -> Tensor:
        return x[:, :, :length] if self.in_lines else x[:, :, self.back[:length]]


def _reach(mask: Tensor, size: int) -> int:
    """How far before its block's first code any code looks."""
    rows, columns = mask.nonzero(as_tuple=True)
    return max(0, int((rows // size * size - columns).max()))


class _Joined(torch.autograd.Function):
    """Attention of blocks to the caption and to their windows, as one softmax."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, bias: Tensor,
        before: int, size: int,
    ) -> Tensor:  # fmt: skip
        blocks = _blocked(q, size)
        windows = [_windows(x, before, size) for x in (k, v)]
        to_caption, sum_caption = _flash(q, keys, values)
        to_codes, sum_codes = _flash(blocks, *windows, attn_mask=bias)
        to_codes, sum_codes = to_codes.reshape(q.shape), sum_codes.reshape(q.shape[:3])
        total = torch.logaddexp(sum_caption, sum_codes)
        out = to_caption * (sum_caption - total).exp()[..., None]
        out += to_codes * (sum_codes - total).exp()[..., None]
        ctx.save_for_backward(q, k, v, keys, values, bias, out, total)
        ctx.before, ctx.size = before, size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keys, values, bias, out, total = ctx.saved_tensors
        before, size = ctx.before, ctx.size
        gradient = gradient.contiguous()
        dq, dkeys, dvalues = _flash_backward(gradient, q, keys, values, out, total, 0.0, False)
        windows = [_windows(x, before, size) for x in (k, v)]
        blocked = [_blocked(x, size) for x in (gradient, q)]
        sums = _blocked(total[..., None], size)[..., 0]
        dblocks, *dwindows = _flash_backward(
            blocked[0], blocked[1], *windows, _blocked(out, size), sums, 0.0, False, attn_mask=bias
        )
        dk, dv = (_joined_windows(x, k.shape, before, size) for x in dwindows)
        return dq + dblocks.reshape(q.shape), dk, dv, dkeys, dvalues, None, None, None


def _blocked(x: Tensor, size: int) -> Tensor:
    """[B, A, b·Q, E] to [B, A·b, Q, E]."""
    return x.unflatten(2, (-1, size)).flatten(1, 2)


def _windows(x: Tensor, before: int, size: int) -> Tensor:
    """[B, A, b·Q, E] to [B, A·b, K, E]: each block's own codes and those before it."""
    padded = F.pad(x, (0, 0, before, 0))
    return padded.unfold(2, before + size, size).flatten(1, 2).transpose(2, 3).contiguous()


def _joined_windows(windows: Tensor, shape: torch.Size, before: int, size: int) -> Tensor:
    """The adjoint of `_windows`: what windows share is added up."""
    heads, count = shape[1], shape[2] // size
    each = windows.unflatten(1, (heads, count))
    whole = windows.new_zeros(shape[0], heads, before + shape[2], shape[3])
    for block in range(count):
        whole[:, :, block * size : block * size + before + size] += each[:, :, block]
    return whole[:, :, before:]
