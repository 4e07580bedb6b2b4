"""Compression between machines, against a slow plain version of it and the closed forms."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from model_zoo.sizes import compressed_share
from model_zoo.training.fragments import Blocks, Fragment, Piece
from model_zoo.training.powersgd import Exchange, Shape, choose_rank, orthogonal
from model_zoo.training.processes import Processes
from model_zoo.transformer import Layer
from tests.model_zoo.training import exchanges
from tests.model_zoo.training.exchanges import MACHINES, PARTS, RANKS, UPDATES, gradient
from tests.model_zoo.training.ranks import Ranks

Found = dict[str, list[dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By case, what each of two processes, a machine each, came to."""
    folder = tmp_path_factory.mktemp("exchanges")
    ranks = Ranks(MACHINES, exchanges.main, folder, log=folder / "log.txt")
    assert ranks.wait(60) == 0, ranks.said()
    return {
        case: [load_file(folder / f"{case}-{rank}.safetensors") for rank in range(MACHINES)]
        for case in exchanges.CASES
    }


def _reference(name: str, q: np.ndarray, warm: bool) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """PowerSGD as its paper writes it, in float64: the mean and the errors after each update."""
    errors = [np.zeros(PARTS[name].shape) for _ in range(MACHINES)]
    updates = []
    for update in range(UPDATES):
        errors = [error + gradient(name, m, update) for m, error in enumerate(errors)]
        p = sum(error @ q for error in errors) / MACHINES
        p, _ = np.linalg.qr(p)
        factor = sum(error.T @ p for error in errors) / MACHINES
        mean = p @ factor.T
        errors = [error - mean for error in errors]
        updates.append((mean, errors))
        q = factor if warm else q
    return updates


def _off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("case", "least"), [("fp32", 1e-4), ("buckets", 1e-4), ("warm", 1e-3), ("bf16", 0.02),
                        ("fp16", 0.003)]
)  # fmt: skip
@pytest.mark.parametrize("name", RANKS)
def test_means_and_errors_are_those_of_the_plain_version(
    exchanged: Found, case: str, least: float, name: str
) -> None:
    first = exchanged["fp32"][0][f"q/0/{name}"]
    for update, (mean, errors) in enumerate(_reference(name, first, case == "warm")):
        for machine in range(MACHINES):
            found = exchanged[case][machine]
            assert _off(found[f"mean/{update}/{name}"], mean) < least
            assert _off(found[f"error/{update}/{name}"], errors[machine]) < least


@pytest.mark.parametrize("case", exchanges.CASES)
def test_all_machines_come_to_the_same_bits(exchanged: Found, case: str) -> None:
    one, other = exchanged[case]
    means = [key for key in one if key.startswith(("mean/", "q/"))]
    assert len(means) >= UPDATES * len(PARTS)
    for key in means:
        np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("case", exchanges.CASES)
def test_what_is_not_compressed_is_the_mean(exchanged: Found, case: str) -> None:
    whole = PARTS if case == "plain" else PARTS.keys() - RANKS.keys()
    for name in whole:
        for update in range(UPDATES):
            wanted = sum(gradient(name, machine, update) for machine in range(MACHINES)) / MACHINES
            found = exchanged[case][0][f"mean/{update}/{name}"]
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * PARTS[name].size)


@pytest.mark.parametrize("case", ["fp32", "warm", "bf16", "fp16"])
@pytest.mark.parametrize("name", RANKS)
def test_nothing_of_a_gradient_is_lost(exchanged: Found, case: str, name: str) -> None:
    """What was applied and what waits in the error buffer are all that came in, on any wire."""
    applied = sum(exchanged[case][0][f"mean/{update}/{name}"] for update in range(UPDATES))
    for machine in range(MACHINES):
        came = sum(gradient(name, machine, update) for update in range(UPDATES))
        waits = exchanged[case][machine][f"error/{UPDATES - 1}/{name}"]
        assert _off(applied + waits, came) < 1e-5


def test_q_stays_as_drawn_or_is_the_last_factor(exchanged: Found) -> None:
    for name, rank in RANKS.items():
        fixed = [exchanged["fp32"][0][f"q/{update}/{name}"] for update in range(UPDATES)]
        assert fixed[0].shape == (PARTS[name].shape[1], rank)
        assert all(np.array_equal(fixed[0], one) for one in fixed)
        warm = [exchanged["warm"][0][f"q/{update}/{name}"] for update in range(UPDATES)]
        assert not np.allclose(warm[0], warm[-1], rtol=1e-3)
    drawn = [exchanged["fp32"][0][f"q/0/{name}"] for name in ("one.qkv", "one.out")]
    assert not np.allclose(*drawn)


@pytest.mark.parametrize(("case", "width"), [("fp32", 4), ("warm", 4), ("bf16", 2), ("fp16", 2)])
def test_bytes_sent_are_those_of_the_closed_form(exchanged: Found, case: str, width: int) -> None:
    rest = sum(np.prod(PARTS[name].shape) for name in PARTS.keys() - RANKS.keys())
    factors = sum(rank * sum(PARTS[name].shape) for name, rank in RANKS.items())
    # In fp16 each of the four matrices has a scale of its own for either product.
    scales = 4 * 2 * 4 if case == "fp16" else 0
    for found in exchanged[case]:
        assert found["sent"] == UPDATES * (4 * rest + width * factors + scales)
        assert found["plain"] == UPDATES * 4 * sum(np.prod(part.shape) for part in PARTS.values())


def test_without_a_rank_all_goes_as_it_is(exchanged: Found) -> None:
    for found in exchanged["plain"]:
        assert found["sent"] == found["plain"]
        assert not any(key.startswith("error/") for key in found)


def test_one_machine_exchanges_nothing() -> None:
    values = torch.randn(8, 8)
    exchange = Exchange(None, 1, rank=2)
    exchange.average([Piece("w", "block", own := values.clone(), 1.0)])
    assert torch.equal(own, values)
    assert exchange.traffic.sent == exchange.traffic.plain == 0
    assert not exchange.errors


def test_a_gradient_of_low_rank_comes_back_as_it_was(processes: Processes) -> None:
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(30, 3, generator=draw) @ torch.randn(3, 20, generator=draw)
    found = wanted.clone()
    exchange = Exchange(processes.alone, 1, rank=3)
    exchange.average([Piece("w", "block", found, 1.0)])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert exchange.errors["w"].norm() < 1e-4 * wanted.norm()


def test_the_same_gradient_over_and_over_is_made_up_for(processes: Processes) -> None:
    """The mean of what is applied tends to the gradient. (With Q fixed it does not: E Q is zero
    after each update, so that P changes only as far as the gradient does.)"""
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(12, 10, generator=draw)
    exchange = Exchange(processes.alone, 1, rank=3, warm_start=True)
    total = torch.zeros_like(wanted)
    distances = []
    for update in range(1, 101):
        exchange.average([Piece("w", "block", own := wanted.clone(), 1.0)])
        total += own
        distances.append(float((total / update - wanted).norm() / wanted.norm()))
    assert distances[0] > 0.5
    assert distances[-1] < 0.1


def test_zeros_and_huge_numbers_pass_in_fp16(processes: Processes) -> None:
    draw = torch.Generator().manual_seed(0)
    exchange = Exchange(processes.alone, 1, rank=4, wire="fp16")
    huge = 1e20 * torch.randn(9, 4, generator=draw) @ torch.randn(4, 9, generator=draw)
    wanted = huge.clone()
    zeros, tiny = torch.zeros(9, 9), 1e-20 * wanted / 1e20
    small = tiny.clone()
    parts = {"huge": huge, "zeros": zeros, "tiny": tiny}
    for name, part in parts.items():  # one after the other: those of a bundle share a scale
        exchange.average([Piece(name, "block", part, 1.0)])
    assert not zeros.any()
    assert (huge - wanted).norm() < 0.01 * wanted.norm()
    assert (tiny - small).norm() < 0.01 * small.norm()


def test_a_small_gradient_passes_in_fp16_beside_a_large_one_of_its_shape(
    processes: Processes,
) -> None:
    draw = torch.Generator().manual_seed(0)
    large = torch.randn(9, 3, generator=draw) @ torch.randn(3, 8, generator=draw)
    small = 2.0**-35 * large
    wanted = small.clone()
    exchange = Exchange(processes.alone, 1, rank=3, wire="fp16")
    exchange.average([Piece("one", "one", large, 1.0), Piece("other", "other", small, 1.0)])
    assert (small - wanted).norm() < 0.01 * wanted.norm()


def test_a_factor_of_another_width_is_drawn_anew(processes: Processes) -> None:
    """After a resume on twice as many processes, where both have rank 1, the least there is."""
    exchange = Exchange(processes.alone, 1, rank=2, warm_start=True)
    for columns in (8, 4):
        exchange.average([Piece("w@0/0", "block", torch.randn(16, columns), columns / 16)])
        exchange.errors.clear()  # which are cut anew as the fragments are


def test_orthogonal_is_the_q_of_numpy_up_to_signs() -> None:
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 12, 5, generator=draw)
    for scale in (1e-20, 1.0, 1e20):
        found = orthogonal(matrices * scale).numpy()
        for one, matrix in zip(found, matrices.double().numpy(), strict=True):
            wanted, _ = np.linalg.qr(matrix)
            signs = np.sign((one * wanted).sum(0))
            np.testing.assert_allclose(one * signs, wanted, atol=1e-4)


@pytest.mark.parametrize("lower", [0, 1, 3])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_matrices_of_lower_rank_give_orthonormal_columns_too(lower: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(12, lower, generator=draw), torch.randn(lower, 5, generator=draw)
    matrix = scale * left @ right
    found = orthogonal(matrix)
    torch.testing.assert_close(found.T @ found, torch.eye(5), atol=1e-5, rtol=0)
    # What the matrix spans is among them.
    torch.testing.assert_close(found @ (found.T @ matrix), matrix, rtol=0, atol=1e-4 * scale)


def test_a_millionth_of_the_identity_chooses_the_columns_that_a_matrix_leaves_open() -> None:
    first = torch.tensor([3.0, 1.0, -2.0, 5.0])
    found = orthogonal(torch.stack([first, torch.zeros(4), torch.zeros(4)], dim=1)).numpy()
    wanted, _ = np.linalg.qr(np.stack([first.numpy(), *np.eye(4)[1:3]], axis=1))
    signs = np.sign((found * wanted).sum(0))
    np.testing.assert_allclose(found * signs, wanted, atol=1e-5)


def test_a_piece_has_its_share_of_the_rank_and_at_least_one() -> None:
    assert Shape(496, 3968, 1 / 8).rank(896) == 112
    assert Shape(496, 3968, 1 / 8).sent(896) == 112 * (496 + 3968)
    assert Shape(100, 100, 1 / 8).rank(2) == 1


@pytest.mark.parametrize(
    ("shape", "whole"),
    [
        (Shape(8, 100, 1.0), 8),  # as wide as the piece
        (Shape(100, 8, 1.0), 20),
        (Shape(10, 10, 1.0), 5),  # 5 · 20 = 10 · 10
        (Shape(2, 2, 0.01), 1),
    ],
)
def test_a_piece_that_does_not_pay_goes_as_it_is(shape: Shape, whole: int) -> None:
    assert shape.rank(whole) == 0
    assert shape.sent(whole) == shape.rows * shape.columns


def _saving(shapes: list[Shape], rank: int) -> float:
    return 1 - sum(s.sent(rank) for s in shapes) / sum(s.rows * s.columns for s in shapes)


@pytest.mark.parametrize("saving", [0.05, 0.5, 0.75, 0.9])
def test_the_largest_rank_that_saves_enough_is_chosen(saving: float) -> None:
    shapes = [Shape(64, 32, 0.5)] * 4 + [Shape(256, 32, 0.5), Shape(19, 256, 19 / 64)]
    rank = choose_rank(shapes, saving)
    assert _saving(shapes, rank) >= saving
    assert all(_saving(shapes, more) < saving for more in range(rank + 1, 80))


def test_a_saving_that_no_rank_reaches_is_refused() -> None:
    words = "compression.saving: 95% cannot be reached with these matrices; rank 1 saves 80%"
    with pytest.raises(ValueError, match=words):
        choose_rank([Shape(10, 10, 1.0)], 0.95)
    with pytest.raises(ValueError, match="rank 1 saves 0%"):
        choose_rank([], 0.5)


def _pieces(width: int, heads: int, shards: int, place: int) -> list[Piece]:
    """What a process has of a layer's matrices, cut as FSDP2's engine cuts them."""
    with torch.device("meta"):
        blocks = Blocks.find(Layer(width, heads))
    found: list[Piece] = []
    for name, shape in blocks.shapes.items():
        # Along the longer side, and across matrices that stand below each other.
        axis = int(len(shape) == 2 and (blocks.parts[name] > 1 or shape[1] > shape[0]))
        numel = int(np.prod(shape)) // shards
        home = torch.empty(numel, device="meta")
        fragment = Fragment(name, shape, place * numel, home, 0, numel, axis)
        found += blocks.cut(fragment, home)
    return found


@pytest.mark.parametrize(("width", "heads", "rank"), [(1920, 30, 512), (3968, 62, 896)])
def test_the_saving_of_a_layer_is_the_paper_s(width: int, heads: int, rank: int) -> None:
    for place in (0, 7):
        shapes = [
            Shape(*piece.gradient.shape, piece.share)
            for piece in _pieces(width, heads, 8, place)
            if piece.share is not None
        ]
        assert len(shapes) == 6  # queries, keys, values, output; into four times the width and back
        assert {shape.rank(rank) for shape in shapes} == {rank // 8}
        whole = sum(shape.rows * shape.columns for shape in shapes)
        assert whole == 12 * width**2 // 8
        share = Fraction(sum(shape.sent(rank) for shape in shapes), whole)
        assert 1 - share == 1 - Fraction(5 * rank, 8 * width)
        assert float(share) == pytest.approx(compressed_share(width, rank, 8), rel=1e-15)


@pytest.mark.parametrize("shards", [2, 4])
def test_what_is_sent_of_a_layer_is_what_the_closed_form_says(
    processes: Processes, shards: int
) -> None:
    width, rank = 64, 16
    exchange = Exchange(processes.alone, 1, rank=rank)
    pieces = [
        piece._replace(gradient=torch.randn(piece.gradient.shape))
        for piece in _pieces(width, 4, shards, 1)
        if piece.share is not None
    ]
    exchange.average(pieces)
    sent = Fraction(exchange.traffic.sent, exchange.traffic.plain)
    assert sent == Fraction(rank * (shards + 2), 2 * width * shards)
    assert float(sent) == pytest.approx(compressed_share(width, rank, shards), rel=1e-15)
