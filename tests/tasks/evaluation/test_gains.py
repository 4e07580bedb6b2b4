"""What ranking gains is counted over the prompts that have a verdict."""

from __future__ import annotations

import pytest

from tasks.evaluation.gains import curve, gains

WORTHS = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], []]


def test_first_average_and_any() -> None:
    assert gains(WORTHS, "right") == {"right": 0.5, "right_average": 0.375, "right_any": 1.0}
    assert gains([[]], "right") == {}


def test_the_curve_goes_from_the_average_to_the_first() -> None:
    found = curve(WORTHS)
    assert list(found) == [1, 2, 4]
    assert found[1] == pytest.approx(0.375)
    assert found[4] == 0.5
    # Of the six pairs, three hold the first of [1, 0, 0, 1] and three more its last alone or not.
    pairs_first = (1 + 1 + 1 + 0 + 0 + 0) / 6
    pairs_second = (0 + 0 + 0 + 0 + 0 + 1) / 6
    assert found[2] == pytest.approx((pairs_first + pairs_second) / 2)
    assert curve([]) == {}
