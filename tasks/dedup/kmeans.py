"""Spherical k-means: cells of directions, by which near ones are looked for.

Plain torch on one thread: the rows of the first cells and of the sample that trains them are given
by their order, so the same rows give the same cells on every machine of a kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

_BLOCK = 8192  # rows at a time
_SAMPLE = 64  # rows a cell that it is trained on, at most
_ROUNDS = 10


def assign_cells(rows: Any, cells: int) -> np.ndarray:
    """The cell of each row, int64 [N].

    Args:
        rows: features of length 1 [N, D], of any float type; may lie on disk.
        cells: how many, at most N.
    """
    if cells <= 1:
        return np.zeros(len(rows), dtype=np.int64)
    sample = _floats(rows[: cells * _SAMPLE])
    centres = sample[torch.linspace(0, len(sample) - 1, cells).long()].clone()
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        # A cell that lost all its rows stays where it was.
        centres = torch.where(sums.any(dim=1, keepdim=True), functional.normalize(sums), centres)
    found = [
        _nearest(_floats(rows[start : start + _BLOCK]), centres)
        for start in range(0, len(rows), _BLOCK)
    ]
    return np.asarray(torch.cat(found).numpy())


def _floats(rows: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def _nearest(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    parts = [(part @ centres.T).argmax(dim=1) for part in rows.split(_BLOCK)]
    return torch.cat(parts)
