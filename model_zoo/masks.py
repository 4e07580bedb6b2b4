"""Which earlier tokens each token of the stream may attend to (DALL-E, appendix B.1).

The stream is S caption positions followed by the H·W image codes in raster order. Caption positions
attend to earlier caption positions, image positions to the whole caption, and image positions to
image positions by one of four causal patterns. These boolean masks are the plain reference: True
where attention is allowed, row the position that looks, column the one that is looked at.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["row", "column", "convolutional", "full"]


def layer_kinds(layers: int) -> tuple[Kind, ...]:
    """The paper's pattern: row, column, row, row, repeated; the last layer is convolutional."""
    kinds: list[Kind] = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, layers)]
    return (*kinds, "convolutional")


def image_mask(kind: Kind, height: int, width: int, kernel: int) -> Tensor:
    """Mask among image positions, bool [H·W, H·W]; every pattern is causal and includes itself.

    - row: the W previous codes in raster order (so it reaches the same column of the row above)
    - column: the codes above in the same column
    - convolutional: the earlier half of a kernel x kernel window; the window is a set of raster
      offsets, so that it wraps round at row ends
    - full: every earlier code

    Raises:
        ValueError: for a convolutional mask whose kernel is not an odd number.
    """
    position = torch.arange(height * width)
    offset = position[:, None] - position[None, :]
    if kind == "row":
        allowed = offset <= width
    elif kind == "column":
        allowed = offset % width == 0
    elif kind == "convolutional":
        allowed = torch.isin(offset, _window(width, kernel))
    else:
        allowed = torch.ones_like(offset, dtype=torch.bool)
    return allowed & (offset >= 0)


def _window(width: int, kernel: int) -> Tensor:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"conv_kernel: {kernel} has no centre; it must be odd, such as 11")
    reach = torch.arange(-(kernel // 2), kernel // 2 + 1)
    return (reach[:, None] * width + reach[None, :]).flatten()


def stream_mask(kind: Kind, caption: int, height: int, width: int, kernel: int) -> Tensor:
    """Mask over the whole stream, bool [S + H·W, S + H·W], for S = `caption` positions."""
    length = caption + height * width
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[caption:, caption:] = image_mask(kind, height, width, kernel)
    return mask
