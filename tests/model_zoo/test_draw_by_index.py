"""Draws by index: permutations that are whole, even chances, nothing that depends on the asking."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo.draw_by_index import chosen, hashed, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 10, 63, 64, 65, 1000, 4097])
def test_a_shuffle_is_a_permutation_of_its_own_for_each_key(size: int) -> None:
    index = np.arange(size)
    found = [shuffled(index, size, 3, epoch) for epoch in range(3)]
    for one in found:
        assert sorted(one.tolist()) == list(range(size))
    assert size < 10 or not np.array_equal(found[0], found[1])


def test_a_part_is_shuffled_as_it_is_within_the_whole() -> None:
    whole = shuffled(np.arange(1000), 1000, 7)
    part = np.array([999, 5, 17])
    assert shuffled(part, 1000, 7).tolist() == whole[part].tolist()


def test_a_shuffle_of_a_web_s_worth_takes_no_memory_for_it() -> None:
    found = shuffled(np.arange(10_000), 250_000_000_000, 1)
    assert len(set(found.tolist())) == 10_000 and found.max() < 250_000_000_000
    # Spread over all of it: a tenth in each tenth, within five deviations.
    counts = np.bincount(found * 10 // 250_000_000_000, minlength=10)
    assert (abs(counts - 1000) < 150).all()


def test_neighbours_are_parted() -> None:
    places = shuffled(np.arange(10_000), 10_000, 2)
    steps = abs(np.diff(places))
    assert steps.mean() == pytest.approx(10_000 / 3, rel=0.03)  # as for independent draws
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("ways", [1, 2, 5, 7])
def test_each_way_is_chosen_as_often(ways: int) -> None:
    counts = np.bincount(chosen(np.arange(70_000), ways, 4, 9), minlength=ways)
    assert len(counts) == ways
    expected = 70_000 / ways
    assert ((counts - expected) ** 2 / expected).sum() < 30


def test_bits_are_even_and_change_with_the_key() -> None:
    one, other = (hashed(np.arange(20_000), key) for key in (1, 2))
    bits = (one[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert (abs(bits.mean(0) - 0.5) < 0.02).all()
    assert not (one == other).any()
