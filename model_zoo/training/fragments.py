"""Fragments: the part of each parameter that one process updates, however an engine cuts it.

ZeRO cuts the parameters of a group, laid end to end, into equal runs, so that a fragment is a run
of a parameter's elements in row-major order. FSDP2 cuts each parameter along an axis; along the
second, a fragment is a run of the transposed parameter's elements. All else in the training system
(scales, exchange between machines, clipping, averages, checkpoints) works on fragments and knows
nothing of engines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn

from model_zoo.training.precision import Linear, residual_blocks


@dataclass(frozen=True, eq=False)
class Fragment:
    """A run of a parameter's elements that this process updates.

    Attributes:
        name: of the parameter, as in `named_parameters`.
        shape: of the whole parameter.
        start: first element of the run, with `axis` as the slowest axis.
        home: the optimiser's parameter (fp32) that holds the run.
        offset: of the run in the home, flattened.
        numel: elements of the run.
        axis: 0, or 1 where the run is one of the transposed parameter: whole columns, which the
            home holds row by row all the same.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    home: Tensor = field(repr=False)
    offset: int
    numel: int
    axis: int = 0

    def of(self, tensor: Tensor) -> Tensor:
        """The fragment's part of a tensor that is laid out as its home, flat; a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)

    @property
    def weight(self) -> Tensor:
        """The fragment's fp32 weights, flat; a view of the home."""
        return self.of(self.home)


def flat_gradient(home: Tensor) -> Tensor:
    """The gradient of a home that has one, as a flat view."""
    assert home.grad is not None
    return home.grad.view(-1)


class Piece(NamedTuple):
    """A piece of a fragment's gradient that is exchanged as one matrix, or as it is.

    Attributes:
        key: what it is called on every machine alike.
        block: the residual block that it belongs to, or "".
        gradient: view of the fragment's gradient; [rows, columns] if `share` is given.
        share: part of the whole matrix that it is, for matrices that may be compressed.
    """

    key: str
    block: str
    gradient: Tensor
    share: float | None


@dataclass(frozen=True)
class Blocks:
    """Which residual block each parameter belongs to, and which parameters are matrices of one.

    To be found before an engine cuts the parameters: ZeRO 3 leaves them without their shapes.
    """

    shapes: Mapping[str, tuple[int, ...]]
    """Of all parameters, whole."""
    of: Mapping[str, str]
    """Block by parameter; "" for parameters outside of all blocks."""
    parts: Mapping[str, int]
    """By each matrix inside a block: of how many equal ones, one below the other, it is made."""

    @classmethod
    def find(cls, network: nn.Module) -> Blocks:
        """Those of a network."""
        shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        blocks = residual_blocks(network)
        of = {name: _owner(name, blocks) for name in shapes}
        stacked = {
            f"{name}.weight": module.parts
            for name, module in network.named_modules()
            if isinstance(module, Linear)
        }
        matrices = [name for name, shape in shapes.items() if of[name] and len(shape) == 2]
        return cls(shapes, of, {name: stacked.get(name, 1) for name in matrices})

    def cut(self, fragment: Fragment, gradient: Tensor) -> list[Piece]:
        """The pieces of a fragment, given its flat gradient: matrices as far as it holds any."""
        block, parts = self.of[fragment.name], self.parts.get(fragment.name)
        if parts is None:
            return [Piece(f"{fragment.name}@{fragment.start}", block, gradient, None)]
        if fragment.axis == 1:
            return _stacked(fragment, gradient, block, parts)
        return _rows(fragment, gradient, block, parts)


def _owner(name: str, blocks: Mapping[str, object]) -> str:
    return max((one for one in blocks if name.startswith(f"{one}.")), key=len, default="")


def _stacked(fragment: Fragment, gradient: Tensor, block: str, parts: int) -> list[Piece]:
    """Columns of a matrix: those of each of its parts."""
    own = gradient.view(fragment.shape[0], -1)
    share = own.shape[1] / fragment.shape[1]
    return [
        Piece(f"{fragment.name}@{fragment.start}/{number}", block, part, share)
        for number, part in enumerate(own.chunk(parts))
    ]


def _rows(fragment: Fragment, gradient: Tensor, block: str, parts: int) -> list[Piece]:
    """Whole rows of each part of a matrix as matrices; what is left of a row at either end."""
    columns = fragment.shape[1]
    height = fragment.shape[0] // parts
    end = fragment.start + fragment.numel
    marks = range(0, math.prod(fragment.shape) + 1, height * columns)
    pieces: list[Piece] = []
    for low, high in pairwise(marks):
        first, last = max(low, fragment.start), min(high, end)
        if first < last:
            own = gradient[first - fragment.start : last - fragment.start]
            pieces += _run(fragment.name, first, own, block, columns, height)
    return pieces


def _run(name: str, start: int, own: Tensor, block: str, columns: int, height: int) -> list[Piece]:
    end = start + len(own)
    first, last = -(-start // columns), end // columns
    if last - first < 2:
        return [Piece(f"{name}@{start}", block, own, None)]
    head, tail = first * columns - start, end - last * columns
    matrix = own[head : len(own) - tail].view(last - first, columns)
    pieces = [Piece(f"{name}@{first * columns}", block, matrix, (last - first) / height)]
    if head:
        pieces.append(Piece(f"{name}@{start}", block, own[:head], None))
    if tail:
        pieces.append(Piece(f"{name}@{last * columns}-", block, own[len(own) - tail :], None))
    return pieces
