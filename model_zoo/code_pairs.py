"""Captions and image codes, as the encoding stage leaves them, for training a prior.

A file (`codes-*.safetensors`) holds `tokens`, int32 [n, L], -1 where a caption is shorter, and
`codes`, int32 [n, V, H, W]: the codes of V crops of each image, of which every epoch draws one. It
may hold `token_variants`, int32 [n, T, L]: the captions split with BPE dropout, of which then every
epoch draws one instead of `tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor


class CodePairs:
    """The pairs of several files, in the order of the files."""

    def __init__(self, files: Sequence[Path], seed: int) -> None:
        self.seed = seed
        self.files = tuple(files)
        self.tokens = torch.cat([_read_captions(file) for file in files])
        self.codes = torch.cat([_read(file, "codes", 4) for file in files])

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """`tokens` int64 [B, L] and `codes` int64 [B, H·W], as this epoch has drawn them."""
        chosen = torch.from_numpy(indices)
        draw = np.random.default_rng([self.seed, epoch])
        crop = draw.integers(self.codes.shape[1], size=len(self))[indices]
        split = draw.integers(self.tokens.shape[1], size=len(self))[indices]
        return {
            "tokens": self.tokens[chosen, torch.from_numpy(split)].long(),
            "codes": self.codes[chosen, torch.from_numpy(crop)].flatten(1).long(),
        }

    def check(
        self, text_vocabulary: int, text_length: int, image_vocabulary: int, height: int, width: int
    ) -> None:
        """Refuse data that was not made for a network of these sizes.

        Raises:
            ValueError: naming what differs, with both values.
        """
        first = self.files[0].name
        if not len(self):
            raise ValueError(f"{first}: there is not one pair to train on")
        found, wanted = tuple(self.codes.shape[2:]), (height, width)
        if found != wanted:
            raise ValueError(f"{first}: codes of a {found} grid, but the network's is {wanted}")
        if self.tokens.shape[2] != text_length:
            raise ValueError(
                f"{first}: captions of {self.tokens.shape[2]} positions,"
                f" but the network has text_length {text_length}"
            )
        _check_range(first, "tokens", self.tokens, -1, text_vocabulary)
        _check_range(first, "codes", self.codes, 0, image_vocabulary)


def _read_captions(file: Path) -> Tensor:
    """Int32 [n, ways to split a caption, L]."""
    with safe_open(file, framework="pt") as opened:
        varied = "token_variants" in opened.keys()  # noqa: SIM118
    return _read(file, "token_variants", 3) if varied else _read(file, "tokens", 2)[:, None]


def _read(file: Path, name: str, axes: int) -> Tensor:
    with safe_open(file, framework="pt") as opened:
        if name not in opened.keys():  # noqa: SIM118
            raise ValueError(f"{file}: has no tensor {name!r}; is it a file of encoded pairs?")
        tensor: Tensor = opened.get_tensor(name)
    if tensor.ndim != axes:
        raise ValueError(f"{file}: {name} has {tensor.ndim} axes, but pairs have {axes}")
    return tensor


def _check_range(file: str, name: str, values: Tensor, low: int, end: int) -> None:
    least, most = int(values.min()), int(values.max())
    if least < low or most >= end:
        raise ValueError(
            f"{file}: {name} run from {least} to {most}, but the network's from {low} to {end - 1}"
        )
