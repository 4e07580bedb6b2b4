"""Random crops of stored pictures: what a network of pictures sees in an epoch.

Files are safetensors with "images" uint8 [N, 3, R, R] and any further tensors [N, ...] that belong
to them; or WebDataset shards, each followed by its index (`model_zoo.picture_shards`), with the
same tensors but for the images, which are decoded when they are asked for.

The augmentation is that of DALL-E's appendix A: the picture is resized to a random side t by area,
then a random square is cut out. Resizing by area means that each new pixel is the mean of the old
ones under it, those at its edges counted by the part that lies under it; it is a matrix product
along each axis, and so is cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor

from model_zoo.picture_shards import SHARD, PictureShard
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


class _Pictures(Protocol):
    """The pictures of one file, and what belongs to them."""

    name: str
    table: dict[str, Tensor]

    def __len__(self) -> int: ...

    def image(self, row: int) -> Tensor: ...


class _Stored:
    """Pictures as pixels in a file, which is mapped from disk and read where it is used."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.table = load_file(path)
        images = self.table.get("images")
        if images is None:
            raise ValueError(f"{path.name} lacks images; it holds {sorted(self.table)}")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"{path.name}: images must be uint8 [N, 3, R, R], not"
                f" {images.dtype} {list(images.shape)}"
            )

    def __len__(self) -> int:
        return len(self.table["images"])

    def image(self, row: int) -> Tensor:
        return self.table["images"][row]


def _opened(files: Sequence[Path]) -> Iterator[tuple[Path, _Pictures]]:
    left = iter(files)
    for path in left:
        if path.suffix != SHARD:
            yield path, _Stored(path)
            continue
        index = next(left, None)
        if index is None:
            raise ValueError(f"{path.name} is a shard without an index after it")
        yield index, PictureShard(path, index)


class PictureFiles:
    """A dataset over such files; a record's crop depends on seed, epoch and its index alone."""

    def __init__(
        self, files: Sequence[Path], seed: int, side: int, crops: CropConfig,
        columns: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.seed, self.side, self.crops, self.columns = seed, side, crops, tuple(columns)
        self.parts = list[_Pictures]()
        for path, part in _opened(files):
            missing = [name for name in self.columns if name not in part.table]
            if missing:
                raise ValueError(f"{path.name} lacks {missing[0]}; it holds {sorted(part.table)}")
            self.parts.append(part)
        self.starts = np.cumsum([0, *map(len, self.parts)])
        # Pillow decodes without the interpreter's lock; to take stored pixels is no work to share.
        decodes = any(isinstance(part, PictureShard) for part in self.parts)
        self._each = ThreadPoolExecutor(torch.get_num_threads()).map if decodes else map

    def __len__(self) -> int:
        return int(self.starts[-1])

    def name(self, index: int) -> str:
        """A record by its file and its place in it, counted from 0."""
        part, row = self._place(index)
        return f"{row} of {part.name}"

    def batch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """The records at these indices: "images" uint8 [B, 3, side, side] and the columns."""
        places = [self._place(int(index)) for index in indices]
        pictures = self._each(lambda place: place[0].image(place[1]), places)
        images = [
            self._crop(picture, int(index), epoch)
            for picture, index in zip(pictures, indices, strict=True)
        ]
        found = {"images": torch.stack(images)}
        for name in self.columns:
            found[name] = torch.stack([part.table[name][row] for part, row in places])
        return found

    def _place(self, index: int) -> tuple[_Pictures, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def _crop(self, image: Tensor, index: int, epoch: int) -> Tensor:
        stream = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, index, 0])
        return random_crop(image, self.side, self.crops, np.random.Generator(stream))
