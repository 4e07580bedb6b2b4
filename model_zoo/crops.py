"""Random crops of stored pictures: what a network of pictures sees in an epoch.

Files are safetensors with "images" uint8 [N, 3, R, R] and any further tensors [N, ...] that belong
to them. The augmentation is that of DALL-E's appendix A: the picture is resized to a random side t
by area, then a random square is cut out. Resizing by area means that each new pixel is the mean of
the old ones under it, those at its edges counted by the part that lies under it; it is a matrix
product along each axis, and so is cutting.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor

from schemas.base import Frozen


class CropConfig(Frozen):
    """The random side t, relative to the crop's; a picture is never made larger than it is stored.

    Whether the paper flips pictures could not be read, so a flip is off unless declared.
    """

    smallest: float = Field(default=9 / 8, ge=1)
    largest: float = Field(default=12 / 8, ge=1)
    flip: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest={self.smallest} must not exceed largest={self.largest}")
        return self


@lru_cache(maxsize=256)
def area_matrix(before: int, after: int) -> Tensor:
    """Weights [after, before] of resizing one axis by area; every row sums to 1."""
    edges = np.arange(after + 1) * (before / after)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(before)[None, :]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return torch.from_numpy((overlap * (after / before)).astype(np.float32))


def area_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize [..., H, W] by area; uint8 stays uint8 (rounded), floats stay floats."""
    rows = area_matrix(images.shape[-2], height).to(images.device)
    columns = area_matrix(images.shape[-1], width).to(images.device)
    resized = rows @ images.float() @ columns.t()
    return resized.round().to(torch.uint8) if images.dtype == torch.uint8 else resized


def random_crop(image: Tensor, side: int, crops: CropConfig, random: np.random.Generator) -> Tensor:
    """A random crop [3, side, side] of one picture [3, R, R] uint8 (appendix A.1).

    Raises:
        ValueError: if the picture is smaller than the crop.
    """
    stored = image.shape[-1]
    if stored < side:
        raise ValueError(
            f"pictures are stored at {stored} pixels a side, crops need {side} or more"
        )
    least, most = (min(stored, round(bound * side)) for bound in (crops.smallest, crops.largest))
    resized = int(random.integers(least, most + 1))
    top, left = random.integers(0, resized - side + 1, size=2)
    flipped = crops.flip and random.random() < 0.5
    if resized == stored:
        cut = image[:, top : top + side, left : left + side]
    else:
        matrix = area_matrix(stored, resized)
        rows, columns = matrix[top : top + side], matrix[left : left + side]
        cut = (rows @ image.float() @ columns.t()).round().to(torch.uint8)
    return cut.flip(-1) if flipped else cut


class PictureFiles:
    """A dataset over such files; a record's crop depends on seed, epoch and its index alone."""

    def __init__(
        self, files: Sequence[Path], seed: int, side: int, crops: CropConfig,
        columns: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.seed, self.side, self.crops, self.columns = seed, side, crops, tuple(columns)
        self.tables = [load_file(path) for path in files]  # mapped from disk, read when used
        for path, table in zip(files, self.tables, strict=True):
            self._check(path, table)
        self.starts = np.cumsum([0, *(len(table["images"]) for table in self.tables)])

    def _check(self, path: Path, table: dict[str, Tensor]) -> None:
        missing = [name for name in ("images", *self.columns) if name not in table]
        if missing:
            raise ValueError(f"{path.name} lacks {', '.join(missing)}; it holds {sorted(table)}")
        images = table["images"]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"{path.name}: images must be uint8 [N, 3, R, R], not"
                f" {images.dtype} {list(images.shape)}"
            )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """The records at these indices: "images" uint8 [B, 3, side, side] and the columns."""
        places = [self._place(int(index)) for index in indices]
        images = [
            self._crop(table["images"][row], int(index), epoch)
            for (table, row), index in zip(places, indices, strict=True)
        ]
        found = {"images": torch.stack(images)}
        for name in self.columns:
            found[name] = torch.stack([table[name][row] for table, row in places])
        return found

    def _place(self, index: int) -> tuple[dict[str, Tensor], int]:
        table = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.tables[table], index - int(self.starts[table])

    def _crop(self, image: Tensor, index: int, epoch: int) -> Tensor:
        stream = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, index, 0])
        return random_crop(image, self.side, self.crops, np.random.Generator(stream))
