"""Captions and image codes, as the encoding stage leaves them, for training a prior.

A file (`codes-*.safetensors`) holds `tokens`, int32 [n, L], -1 where a caption is shorter, and
`codes`, int32 [n, V, H, W]: the codes of V crops of each image, of which every epoch draws one. It
may hold `token_variants`, int32 [n, T, L]: the captions split with BPE dropout, of which then every
epoch draws one instead of `tokens`. The pairs' keys stand in its metadata.

Files are mapped into memory and read a row at a time, as the rows are asked for, so that many
processes share what one machine has read and none holds it all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_zoo.draw_by_index import chosen

_FIRST = 1024  # pairs of each file that are looked at before the training begins
_MOST = 100_000_000  # bytes of a header
_CROP, _SPLIT = 1, 2


class _File:
    """One file, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MOST, path.stat().st_size):
                raise ValueError(f"{path}: is no safetensors file")
            self._header: dict[str, Any] = json.loads(file.read(length))
        self._data = 8 + length
        name = "token_variants" if "token_variants" in self._header else "tokens"
        tokens = self._map(name, 3 if name == "token_variants" else 2)
        self.tokens = tokens if tokens.ndim == 3 else tokens[:, None]
        self.codes = self._map("codes", 4)

    def _map(self, name: str, axes: int) -> NDArray[np.int32]:
        entry = self._header.get(name)
        if entry is None:
            raise ValueError(f"{self.path}: has no tensor {name!r}; is it a file of encoded pairs?")
        shape = tuple(entry["shape"])
        if len(shape) != axes:
            raise ValueError(f"{self.path}: {name} has {len(shape)} axes, but pairs have {axes}")
        if entry["dtype"] != "I32":
            raise ValueError(f"{self.path}: {name} is {entry['dtype']}, but pairs are I32")
        if not all(shape):
            return np.zeros(shape, dtype=np.int32)
        start = self._data + entry["data_offsets"][0]
        return np.memmap(self.path, np.dtype("<i4"), "r", start, shape)

    def key(self, row: int) -> str:
        """What the pair in a row is called."""
        keys = json.loads(self._header.get("__metadata__", {}).get("keys", "[]"))
        return str(keys[row]) if row < len(keys) else f"row {row}"


class CodePairs:
    """The pairs of several files, in the order of the files."""

    def __init__(self, files: Sequence[Path], seed: int) -> None:
        self.seed = seed
        self.files = tuple(_File(file) for file in files)
        self._ends = np.cumsum([len(file.tokens) for file in self.files])
        self._check = _Ranges()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        """`tokens` int64 [B, L] and `codes` int64 [B, H·W], as this epoch has drawn them.

        Raises:
            ValueError: if they are not of the vocabularies that `check` was told.
        """
        first = self.files[0]
        crops = chosen(indices, first.codes.shape[1], self.seed, epoch, _CROP)
        splits = chosen(indices, first.tokens.shape[1], self.seed, epoch, _SPLIT)
        number = np.searchsorted(self._ends, indices, side="right")
        rows = indices - np.concatenate([[0], self._ends])[number]
        places = list(zip(number.tolist(), rows.tolist(), strict=True))
        tokens = [self.files[f].tokens[row, s] for (f, row), s in zip(places, splits, strict=True)]
        codes = [self.files[f].codes[row, c] for (f, row), c in zip(places, crops, strict=True)]
        batch = {"tokens": np.stack(tokens), "codes": np.stack(codes).reshape(len(codes), -1)}
        for name, values in batch.items():
            self._check(lambda: f"{self.name(int(indices[0]))} and those with it", name, values)
        return {name: torch.from_numpy(values).long() for name, values in batch.items()}

    def name(self, index: int) -> str:
        """The key of a pair and the file that it is in, for a person."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        row = index - int(self._ends[number - 1] if number else 0)
        return f"{self.files[number].key(row)} ({self.files[number].path.name})"

    def check(
        self, text_vocabulary: int, text_length: int, image_vocabulary: int, height: int, width: int
    ) -> None:
        """Refuse data that was not made for a network of these sizes.

        Shapes are looked at in all files, values in the first pairs of each and in every batch.

        Raises:
            ValueError: naming what differs, with both values.
        """
        if not len(self):
            raise ValueError(f"{self.files[0].path.name}: there is not one pair to train on")
        self._check = _Ranges(tokens=(-1, text_vocabulary), codes=(0, image_vocabulary))
        for file in self.files:
            name, found = file.path.name, tuple(file.codes.shape[2:])
            if found != (height, width):
                raise ValueError(
                    f"{name}: codes of a {found} grid, but the network's is {(height, width)}"
                )
            if file.tokens.shape[2] != text_length:
                raise ValueError(
                    f"{name}: captions of {file.tokens.shape[2]} positions, but the network has"
                    f" text_length {text_length}"
                )
            for ways, first in (
                (file.codes, self.files[0].codes),
                (file.tokens, self.files[0].tokens),
            ):
                if ways.shape[1] != first.shape[1]:
                    raise ValueError(
                        f"{name}: {ways.shape[1]} crops or splits of a pair, but"
                        f" {self.files[0].path.name} has {first.shape[1]}"
                    )
            self._check(lambda: name, "tokens", file.tokens[:_FIRST])  # noqa: B023 - at once
            self._check(lambda: name, "codes", file.codes[:_FIRST])  # noqa: B023


class _Ranges(dict[str, tuple[int, int]]):
    """The values that each tensor may have, from the first to before the second."""

    def __call__(self, where: Callable[[], str], name: str, values: NDArray[np.int32]) -> None:
        low, end = self.get(name, (-(2**31), 2**31))
        if not values.size:
            return
        least, most = int(values.min()), int(values.max())
        if least < low or most >= end:
            raise ValueError(
                f"{where()}: {name} run from {least} to {most}, but the network's from {low} to"
                f" {end - 1}"
            )
