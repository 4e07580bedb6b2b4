"""What a training process keeps of its fragments in files, and how others read it.

A shard is a safetensors file of flat fp32 runs: `KIND/NAME@START` (KIND is `weight`, a moment,
`average`, `error`), and `KIND/NAME@START/T` for runs of a transposed parameter. Nothing in it says
how many processes there were, so that any number of them, under any engine, reads what it needs
from whichever shards hold it; and nothing in it is a pickle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model_zoo.training.checkpoints import find_damage
from model_zoo.training.fragments import Fragment

WEIGHT, AVERAGE, ERROR = "weight", "average", "error"
_KEY = re.compile(r"(?P<kind>\w+)/(?P<name>.+)@(?P<start>\d+)(?P<turned>/T)?")


class _Run(NamedTuple):
    start: int
    end: int
    file: int
    key: str


def key_of(kind: str, fragment: Fragment) -> str:
    """The name under which a fragment's values are written."""
    return f"{kind}/{fragment.name}@{fragment.start}{'/T' if fragment.axis else ''}"


def write_shard(path: Path, runs: Mapping[str, Tensor]) -> None:
    """Write runs by key (see `key_of`)."""
    save_file({key: run.detach().cpu().contiguous().clone() for key, run in runs.items()}, path)


def as_stored(fragment: Fragment, values: Tensor) -> Tensor:
    """A fragment's flat values in the order in which a shard has them."""
    if not fragment.axis:
        return values
    return values.view(fragment.shape[0], -1).T.reshape(-1)


def as_held(fragment: Fragment, stored: Tensor) -> Tensor:
    """The inverse of `as_stored`."""
    if not fragment.axis:
        return stored
    return stored.view(-1, fragment.shape[0]).T.reshape(-1)


def read_weights(
    checkpoint: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:  # fmt: skip
    """The parameters that a training would give if it ended here: the average where one is kept.

    Args:
        checkpoint: its folder.
        shapes: of all trained parameters.

    Raises:
        ValueError: if it is damaged, or of another network.
    """
    damage = find_damage(checkpoint)
    if damage is not None:
        raise ValueError(f"checkpoint {checkpoint.name} is refused: {damage}")
    shards = Shards(checkpoint.glob("shard-*.safetensors"))
    kind = AVERAGE if shards.names(AVERAGE) else WEIGHT
    return {name: shards.whole(kind, name, shape) for name, shape in shapes.items()}


class Shards:
    """Shards of one checkpoint, opened; each number of each kind stands in one of them, or none."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [safe_open(path, framework="pt") for path in sorted(paths)]
        self._runs: dict[tuple[str, str, int], list[_Run]] = {}
        for number, file in enumerate(self._files):
            for key in file.keys():  # noqa: SIM118
                self._index(number, key, file.get_slice(key).get_shape())
        for runs in self._runs.values():
            runs.sort()

    def _index(self, file: int, key: str, shape: Sequence[int]) -> None:
        found = _KEY.fullmatch(key)
        if found is None or len(shape) != 1:
            raise ValueError(f"checkpoint: {key!r} is no run of a parameter")
        start, axis = int(found["start"]), 1 if found["turned"] else 0
        runs = self._runs.setdefault((found["kind"], found["name"], axis), [])
        runs.append(_Run(start, start + shape[0], file, key))

    def names(self, kind: str) -> set[str]:
        """The parameters of which there are runs of a kind."""
        return {name for own, name, _ in self._runs if own == kind}

    def read(self, kind: str, fragment: Fragment, rest: float | None = None) -> Tensor:
        """A fragment's values, flat, as its home holds them.

        Args:
            kind: of values.
            fragment: of which.
            rest: what stands where no shard has a value.

        Raises:
            ValueError: if values are missing and `rest` is not given.
        """
        end = fragment.start + fragment.numel
        other = (kind, fragment.name, 1 - fragment.axis)
        if other not in self._runs:
            runs = self._runs.get((kind, fragment.name, fragment.axis), [])
            return as_held(
                fragment, self._join(runs, kind, fragment.name, fragment.start, end, rest)
            )
        whole = self.whole(kind, fragment.name, fragment.shape, rest)
        turned = whole.T if fragment.axis else whole
        return as_held(fragment, turned.reshape(-1)[fragment.start : end])

    def whole(
        self, kind: str, name: str, shape: Sequence[int], rest: float | None = None
    ) -> Tensor:
        """A whole parameter's values, in its shape."""
        for axis in (0, 1):
            runs = self._runs.get((kind, name, axis))
            if runs:
                flat = self._join(runs, kind, name, 0, math.prod(shape), rest)
                if axis:
                    return flat.view(shape[1], shape[0]).T.contiguous()
                return flat.view(tuple(shape))
        return self._join([], kind, name, 0, math.prod(shape), rest).view(tuple(shape))

    def _join(
        self, runs: Sequence[_Run], kind: str, name: str, start: int, end: int, rest: float | None
    ) -> Tensor:
        values = torch.full((end - start,), math.nan if rest is None else rest)
        there = 0
        for run in runs:
            low, high = max(start, run.start), min(end, run.end)
            if low < high:
                piece = self._files[run.file].get_slice(run.key)
                values[low - start : high - start] = piece[low - run.start : high - run.start]
                there += high - low
        if rest is None and there != end - start:
            raise ValueError(
                f"checkpoint: of {name} ({kind}) it has {there} of the {end - start} numbers wanted"
            )
        return values
