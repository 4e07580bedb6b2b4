"""Attention that does only the work that its mask allows (DALL-E, appendix B.1).

On a GPU torch's FlexAttention does that (`model_zoo.flex`). This is for a CPU, where its compiled
form has no backward pass.

An image position looks at the whole caption and at few other codes. Taken in the order of a
pattern's lines (rows, or columns for the column pattern), those lie in a short run before it. So
the codes are cut into blocks; a block looks at the caption, at itself and at the few blocks before
it, the latter two under a mask.

Each of these parts goes through torch's flash kernel, and they are joined by their log-sum-exp. The
kernel's backward pass takes output and log-sum-exp as arguments: given the joined ones, it is exact
for each part. Nothing is gathered: a block and the one before it are views of the same memory.

Shapes: B samples, A heads, S caption positions, N codes, E features a head, Q codes a block, b
blocks a sample. Codes lie in memory as [B, b·Q, A, E], which is [B·b, Q, A, E] as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model_zoo.masks import Kind, stream_mask

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# A block holds at least so many codes: shorter ones leave the kernel idle.
_LEAST_BLOCK = 32
# Fewer positions take longer in blocks: 162 of them 1.1 to 1.6 times, 320 of them 0.7 to 1.1 times.
_LEAST_POSITIONS = 256

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class MaskedAttention(nn.Module):
    """Attention under the mask of one pattern; over its parts only where that is faster."""

    mask: Tensor

    def __init__(self, kind: Kind, caption: int, height: int, width: int, kernel: int) -> None:
        super().__init__()
        self.caption = caption
        self.blocks = None
        self.tiles: BlockMask | None = None
        with torch.device("cpu"):  # also of a network that is only counted, on the meta device
            mask = stream_mask(kind, caption, height, width, kernel)
            if kind != "full" and len(mask) >= _LEAST_POSITIONS:
                self.blocks = Blocks(kind, mask[caption:, caption:], height, width)
        # The last code is never an input.
        self.register_buffer("mask", mask[:-1, :-1], persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k' / sqrt(E)) v under the mask, [B, A, S + N - 1, E] of the same each."""
        if self.blocks is None or q.shape[2] != len(self.mask):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        if q.device.type != "cpu":
            return self._on_gpu(q, k, v)
        queries, keys, values = (x[:, :, : self.caption] for x in (q, k, v))
        codes = [x[:, :, self.caption :] for x in (q, k, v)]
        text = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return torch.cat([text, self.blocks(*codes, keys, values)], dim=2)

    def _on_gpu(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from model_zoo import flex  # its compiler takes 2 s to import

        if not flex.works(q.device, q.shape[3], q.dtype):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        if self.tiles is None:
            self.tiles = flex.tiles_of(self.mask)
        out: Tensor = flex.compiled()(q, k, v, block_mask=self.tiles)
        return out


class Blocks(nn.Module):
    """The image positions' part, cut into blocks."""

    place: Tensor
    allowed: Tensor

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
        # Where each code stands in the order of lines.
        self.register_buffer("place", order.argsort(), persistent=False)
        self.register_buffer("allowed", self._allowed(mask[order][:, order]), persistent=False)
        self._biases: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    def _allowed(self, mask: Tensor) -> Tensor:
        """What each block sees of itself and of the blocks before it, bool [j, b, Q, Q]."""
        extra = self.count * self.size - self.codes
        whole = F.pad(mask, (0, extra, 0, extra))
        # Padded positions look at themselves, so that no sum is empty.
        whole.diagonal()[self.codes :] = True
        tiles = whole.view(self.count, self.size, self.count, self.size).transpose(1, 2)
        parts = torch.zeros(self.count, self.count, self.size, self.size, dtype=torch.bool)
        for before in range(self.count):
            parts[before, before:] = tiles.diagonal(-before).permute(2, 0, 1)
        reach = int(parts.flatten(1).any(dim=1).nonzero().max())
        return parts[: reach + 1].clone()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """[B, A, n, E] of the codes' q, k, v [B, A, n, E], n at most N, and the caption's keys and
        values [B, A, S, E]."""
        length = q.shape[2]
        lined = [self._to_lines(x.transpose(1, 2)) for x in (q, k, v)]
        out = _Joined.apply(*lined, keys, values, self.size, *self._biases_of(len(q), q.dtype))
        out = out[:, :length] if self.in_lines else out[:, self.place[:length]]
        return out.transpose(1, 2)

    def _to_lines(self, x: Tensor) -> Tensor:
        """[B, n, A, E] to contiguous [B, b·Q, A, E] in the order of lines."""
        length = x.shape[1]
        lined = x.new_zeros(len(x), self.count * self.size, *x.shape[2:])
        lined[:, slice(length) if self.in_lines else self.place[:length]] = x
        return lined

    def _biases_of(self, samples: int, dtype: torch.dtype) -> list[Tensor]:
        """For j blocks before: 0 where allowed and -inf elsewhere, [B·b - j, 1, Q, Q]."""
        if (samples, dtype) not in self._biases:
            # Before a sample's first blocks stand the last of another sample: they see none.
            repeated = self.allowed.repeat(1, samples, 1, 1)[:, :, None]
            self._biases[samples, dtype] = [
                torch.zeros(part.shape, dtype=dtype).masked_fill(~part, -torch.inf)[before:]
                for before, part in enumerate(repeated)
            ]
        return self._biases[samples, dtype]


class _Joined(torch.autograd.Function):
    """Attention of blocks to the caption, to themselves and to blocks before, as one softmax.

    q, k, v and the result [B, b·Q, A, E]; the caption's keys and values [B, A, S, E].
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, size: int,
        *biases: Tensor,
    ) -> Tensor:  # fmt: skip
        to_caption, total = _flash(q.transpose(1, 2), keys, values)
        result, total = to_caption.transpose(1, 2), total.transpose(1, 2)
        out, sums = _blocked(result, size), _blocked(total[..., None], size)
        blocks = [_blocked(x, size) for x in (q, k, v)]
        for before, bias in enumerate(biases):
            part, part_sums = _flash(*_apart(before, *blocks), attn_mask=bias)
            # The kernel gives 0 as the sum over nothing.
            nothing = bias.amax(dim=3, keepdim=True) < 0
            part_sums = part_sums[..., None].masked_fill(nothing, -torch.inf)
            _join(out[before:], sums[before:], part, part_sums)
        ctx.save_for_backward(q, k, v, keys, values, result, total, *biases)
        ctx.size = size
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keys, values, result, total, *biases = ctx.saved_tensors
        gradient = gradient.contiguous()
        whole = (x.transpose(1, 2) for x in (result, total))
        dq, dkeys, dvalues = _flash_backward(
            gradient.transpose(1, 2), q.transpose(1, 2), keys, values, *whole, 0.0, False
        )
        grads = [dq.transpose(1, 2).contiguous(), torch.zeros_like(k), torch.zeros_like(v)]
        dblocks = [_blocked(x, ctx.size) for x in grads]
        blocks = [_blocked(x, ctx.size) for x in (q, k, v)]
        g, out = _blocked(gradient, ctx.size), _blocked(result, ctx.size)
        sums = _blocked(total[..., None], ctx.size)[..., 0]
        for before, bias in enumerate(biases):
            parts = _flash_backward(
                g[before:], *_apart(before, *blocks), out[before:], sums[before:], 0.0, False,
                attn_mask=bias,
            )  # fmt: skip
            for whole_gradient, part in zip(_apart(before, *dblocks), parts, strict=True):
                whole_gradient.add_(part)
        return *grads, dkeys, dvalues, None, *(None for _ in biases)


def _blocked(x: Tensor, size: int) -> Tensor:
    """A view of [B, b·Q, A, E] as [B·b, A, Q, E]."""
    return x.view(-1, size, *x.shape[2:]).transpose(1, 2)


def _apart(before: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each block's queries with the keys and values of the block so many before it."""
    last = len(k) - before
    return q[before:], k[:last], v[:last]


def _join(out: Tensor, sums: Tensor, part: Tensor, part_sums: Tensor) -> None:
    """Add a part to an output, both softmaxes over their own keys, [..., E]; sums are [..., 1]."""
    together = torch.logaddexp(sums, part_sums)
    out *= (sums - together).exp_()
    out += part.mul_((part_sums - together).exp_())
    sums.copy_(together)
