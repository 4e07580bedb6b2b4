"""Attention that does only the work that its mask allows, on a GPU: torch's FlexAttention.

Its compiled kernel passes over the tiles of 128 x 128 positions that a mask leaves empty: 60 of 100
in a row layer at the paper's sizes, 45 in a column layer. What compiles on one machine need not on
the next, so it is proved at its first use against torch's own attention, and not used where it
fails.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

Kernel = Callable[..., Any]
_TOLERANCE = 1e-2  # of outputs and gradients about 1, whose products GPUs take in TF32


def tiles_of(mask: Tensor) -> BlockMask:
    """Which tiles of a mask, bool [T, T], have to be looked at.

    The kernel reads the mask itself inside the tiles that are not wholly allowed.
    """

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return mask[query, key]

    length = len(mask)
    return create_block_mask(allowed, None, None, length, length, device=str(mask.device))


@functools.cache
def compiled() -> Kernel:
    """The kernel, which is compiled at its first call with each size."""
    kernel: Kernel = torch.compile(flex_attention, dynamic=False)
    return kernel


@functools.cache
def works(device: torch.device, features: int, dtype: torch.dtype) -> bool:
    """Whether the compiled kernel gives what it should there, forward and backward.

    Args:
        features: of a head.
        dtype: of queries, keys and values.
    """
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():  # whoever asks first
            error = _error(compiled(), device, features, dtype)
    except Exception as failure:  # noqa: BLE001 - a compiler fails in any way; there is another path
        warnings.warn(f"FlexAttention is not used: {failure}"[:500], stacklevel=2)
        return False
    if error > _TOLERANCE * (1 if dtype == torch.float32 else 4):
        warnings.warn(f"FlexAttention is not used: it is off by {error:.1e}", stacklevel=2)
        return False
    return True


def _error(kernel: Kernel, device: torch.device, features: int, dtype: torch.dtype) -> float:
    """The largest difference from the attention of torch, of outputs and gradients."""
    length = 200  # no multiple of a tile
    draw = torch.Generator().manual_seed(0)
    shape = (1, 2, length, features)
    given = [torch.randn(shape, generator=draw).to(device, dtype) for _ in range(4)]
    place = torch.arange(length, device=device)
    distance = place[:, None] - place
    mask = (distance >= 0) & ((distance < 9) | (place < 20))

    def run(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> list[Tensor]:
        inputs = [one.clone().requires_grad_() for one in given[:3]]
        out = attend(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, given[3])]

    found = run(lambda q, k, v: kernel(q, k, v, block_mask=tiles_of(mask)))
    wanted = run(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    pairs = zip(found, wanted, strict=True)
    return max(float((one.float() - other.float()).abs().max()) for one, other in pairs)
