"""Part of a picture as the beginning of others: its codes stay, the rest is drawn.

With the top rows kept, a picture and a caption give variations of it ("the same cat on the top as a
sketch on the bottom"; DALL-E, section 3); with a box kept, the rest of a cropped picture is drawn.
A generator that draws in raster order sees only the kept codes before each code that it draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.pictures import decode, to_square

Box = tuple[int, int, int, int]
_LARGEST = 200_000_000  # bytes of a picture's file


@dataclass(frozen=True)
class Given:
    """A picture's file and what of it is kept: `rows` of codes from the top, or a `box` of them.

    The box is (top, left, bottom, right) in codes, the last two not included.
    """

    image: Path
    rows: int | None = None
    box: Box | None = None

    def codes(self, image_tokenizer: Any) -> np.ndarray:
        """Codes int64 [h, w] of the picture's largest centred square, -1 where none is kept.

        Raises:
            ValueError: for a file that is no picture, or a part that is not inside the grid.
            OSError: if the file cannot be read.
        """
        square = to_square(decode(self._content()), image_tokenizer.config.resolution)
        pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None]
        device = next(image_tokenizer.parameters()).device
        codes = image_tokenizer.codes(pixels.to(device))[0].cpu().numpy().astype(np.int64)
        top, left, bottom, right = self._part(*codes.shape)
        kept = np.full_like(codes, -1)
        kept[top:bottom, left:right] = codes[top:bottom, left:right]
        return kept

    def _content(self) -> bytes:
        size = self.image.stat().st_size
        if size > _LARGEST:
            raise ValueError(
                f"image: {self.image} has {size:,} bytes; at most {_LARGEST:,} are read"
            )
        return self.image.read_bytes()

    def _part(self, height: int, width: int) -> Box:
        if (self.rows is None) == (self.box is None):
            raise ValueError("image: say what of it is kept, either --rows or --box")
        if self.rows is not None:
            if not 1 <= self.rows < height:
                raise ValueError(
                    f"rows: {self.rows} of {height} rows of codes; keep 1 to {height - 1}"
                )
            return 0, 0, self.rows, width
        assert self.box is not None
        top, left, bottom, right = self.box
        inside = 0 <= top < bottom <= height and 0 <= left < right <= width
        if not inside or (bottom - top, right - left) == (height, width):
            raise ValueError(
                f"box: {top},{left},{bottom},{right} is no part of {height}x{width} codes;"
                " give TOP,LEFT,BOTTOM,RIGHT inside it, and not all of it"
            )
        return self.box


def parse_box(text: str) -> Box:
    """TOP,LEFT,BOTTOM,RIGHT as numbers.

    Raises:
        ValueError: for anything else.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"box: {text!r} is not of the form TOP,LEFT,BOTTOM,RIGHT, such as 0,0,8,4")
    top, left, bottom, right = (int(part) for part in parts)
    return top, left, bottom, right
