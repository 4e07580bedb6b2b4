"""However parameters are cut, pieces tile a fragment, are views of it, and matrices whole rows."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_zoo.training.fragments import Blocks, Fragment, Piece
from model_zoo.training.precision import Linear, Norm, Residual
from model_zoo.transformer import Layer


class _Cut(NamedTuple):
    fragment: Fragment
    gradient: Tensor
    pieces: list[Piece]
    numbers: Tensor
    """The whole parameter, every element its own number."""


def _cut(shape: tuple[int, int], parts: int, start: int, numel: int, axis: int) -> _Cut:
    blocks = Blocks({"w": shape}, {"w": "block"}, {"w": parts})
    fragment = Fragment("w", shape, start, torch.empty(numel), 0, numel, axis)
    numbers = torch.arange(shape[0] * shape[1], dtype=torch.float32).view(shape)
    turned = numbers.T if axis else numbers
    run = turned.reshape(-1)[start : start + numel]
    gradient = (run.view(-1, shape[0]).T if axis else run).reshape(-1).clone()
    return _Cut(fragment, gradient, blocks.cut(fragment, gradient), numbers)


def _random_cut(draw: np.random.Generator, axis: int, parts: int) -> _Cut:
    rows, columns = parts * int(draw.integers(1, 9)), int(draw.integers(1, 9))
    if axis:
        first, last = np.sort(draw.choice(columns + 1, 2, replace=False)) * rows
    else:
        first, last = np.sort(draw.choice(rows * columns + 1, 2, replace=False))
    return _cut((rows, columns), parts, int(first), int(last - first), axis)


@pytest.mark.parametrize(("axis", "parts"), [(0, 1), (0, 3), (1, 1), (1, 3)])
def test_pieces_tile_a_fragment_and_are_views_of_it(axis: int, parts: int) -> None:
    for seed in range(200):
        cut = _random_cut(np.random.default_rng([seed, axis, parts]), axis, parts)
        seen = torch.cat([piece.gradient.reshape(-1) for piece in cut.pieces])
        assert torch.equal(seen.sort().values, cut.gradient.sort().values)
        for number, piece in enumerate(cut.pieces, 1):
            piece.gradient.fill_(-number)
        assert (cut.gradient < 0).all()
        keys = [piece.key for piece in cut.pieces]
        assert len(set(keys)) == len(keys)
        assert {piece.block for piece in cut.pieces} == {"block"}


@pytest.mark.parametrize("parts", [1, 3])
def test_matrices_are_whole_rows_of_one_part_and_say_how_much_of_it(parts: int) -> None:
    matrices = 0
    for seed in range(200):
        cut = _random_cut(np.random.default_rng([seed, parts]), 0, parts)
        height = cut.numbers.shape[0] // parts
        for piece in cut.pieces:
            if piece.share is None:
                continue
            matrices += 1
            first = int(piece.gradient[0, 0]) // cut.numbers.shape[1]
            rows = piece.gradient.shape[0]
            assert torch.equal(piece.gradient, cut.numbers[first : first + rows])
            assert first // height == (first + rows - 1) // height
            assert piece.share == pytest.approx(rows / height) and rows >= 2
    assert matrices > 40


def test_rows_that_a_fragment_has_whole_are_in_matrices() -> None:
    """Of each part, at most one row is left over at either end, but for runs of one whole row."""
    for seed in range(200):
        cut = _random_cut(np.random.default_rng([seed]), 0, 3)
        columns, height = cut.numbers.shape[1], cut.numbers.shape[0] // 3
        ragged = [piece for piece in cut.pieces if piece.share is None]
        for piece in ragged:
            numbers = piece.gradient
            whole = len(set((numbers // columns).tolist())) - 2
            assert len(numbers) < 3 * columns and whole <= 1
            assert len({int(number) // (columns * height) for number in numbers}) == 1


@pytest.mark.parametrize("parts", [1, 3])
def test_columns_are_those_of_each_part(parts: int) -> None:
    for seed in range(100):
        cut = _random_cut(np.random.default_rng([seed, parts]), 1, parts)
        rows, columns = cut.numbers.shape
        first, count = cut.fragment.start // rows, cut.fragment.numel // rows
        assert len(cut.pieces) == parts
        for piece, part in zip(cut.pieces, cut.numbers.chunk(parts), strict=True):
            assert torch.equal(piece.gradient, part[:, first : first + count])
            assert piece.share == pytest.approx(count / columns)


def test_what_is_no_matrix_of_a_block_stays_as_it_is() -> None:
    blocks = Blocks({"gain": (5,), "embedding": (4, 3)}, {"gain": "block", "embedding": ""}, {})
    for name, block in blocks.of.items():
        fragment = Fragment(name, blocks.shapes[name], 1, torch.empty(4), 0, 4)
        (piece,) = blocks.cut(fragment, gradient := torch.arange(4.0))
        assert piece == Piece(f"{name}@1", block, gradient, None)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.layers = nn.ModuleList([Layer(8, 2), Layer(8, 2)])
        self.outer = Residual(nn.Sequential(Norm(8), Linear(8, 8), Residual(Linear(8, 8))))
        self.head = nn.Linear(8, 5)


def test_blocks_and_matrices_of_a_network_are_found() -> None:
    blocks = Blocks.find(_Network())
    assert set(blocks.of.values()) == {
        "", *(f"layers.{i}.{half}" for i in (0, 1) for half in ("attention", "feedforward")),
        "outer", "outer.branch.2",
    }  # fmt: skip
    assert blocks.of["embedding.weight"] == blocks.of["head.weight"] == ""
    assert blocks.of["layers.1.attention.branch.norm.weight"] == "layers.1.attention"
    assert blocks.of["outer.branch.1.weight"] == "outer"
    assert blocks.of["outer.branch.2.branch.weight"] == "outer.branch.2"  # the innermost
    assert blocks.parts["layers.0.attention.branch.qkv.weight"] == 3
    assert blocks.parts["layers.0.attention.branch.out.weight"] == 1
    assert len(blocks.parts) == 2 * 4 + 2
    assert all(len(blocks.shapes[name]) == 2 for name in blocks.parts)


def test_a_fragment_s_part_of_its_home_is_a_view() -> None:
    home = torch.arange(12.0).view(3, 4)
    fragment = Fragment("w", (3, 4), 4, home, 2, 5)
    assert fragment.weight.tolist() == [2, 3, 4, 5, 6]
    fragment.weight.zero_()
    assert home.view(-1)[2:7].eq(0).all()
    other = torch.arange(12.0).requires_grad_()
    assert fragment.of(other).tolist() == [2, 3, 4, 5, 6]
    assert not fragment.of(other).requires_grad
