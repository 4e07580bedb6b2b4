"""A scale a block against one for all, where gradients span 35 powers of two (DALL-E, figure 4)."""

import math
from itertools import pairwise

import pytest

from model_zoo.training.scales import LEAST, MOST
from tests.model_zoo.training.deep import Deep, Gradients, errors, largest, mean_error


@pytest.fixture(scope="module")
def deep() -> Deep:
    return Deep(64)


@pytest.fixture(scope="module")
def true(deep: Deep) -> Gradients:
    return deep.true()


@pytest.fixture(scope="module")
def single(deep: Deep) -> tuple[float, Gradients]:
    return deep.best_single()


def test_the_case_is_as_deep_as_it_says(true: Gradients) -> None:
    found = largest(true)
    assert round(found[0]) == -5
    assert round(found[-1]) == -40
    assert all(later < earlier + 1 for earlier, later in pairwise(found))


def test_a_scale_a_block_has_a_fifth_of_the_best_single_scale_s_error(
    deep: Deep, true: Gradients, single: tuple[float, Gradients]
) -> None:
    scale, with_one = single
    assert LEAST < scale < MOST  # the search met overflows, and not its own end
    scales, by_block = deep.by_block()
    assert min(scales.values()) > LEAST and max(scales.values()) == MOST
    one, own = errors(with_one, true), errors(by_block, true)
    assert mean_error(one) > 5 * mean_error(own)
    assert max(one) > 5 * max(own)
    assert max(own) < 0.1
    # No block is worse off, beyond what rounding at another power of two makes of it.
    assert all(mine < 1.1 * its for mine, its in zip(own, one, strict=True))


def test_a_larger_single_scale_overflows_and_a_smaller_one_loses_more(
    deep: Deep, true: Gradients, single: tuple[float, Gradients]
) -> None:
    scale, with_one = single
    larger = deep.single(2 * scale)
    assert not all(gradient.isfinite().all() for gradient in larger.values())
    best = mean_error(errors(with_one, true))
    lower = [mean_error(errors(deep.single(scale / 2**k), true)) for k in (1, 4, 8)]
    assert best < lower[0] < lower[1] < lower[2]
    assert math.isfinite(lower[2])
