"""Distances of sets are those of plain computations; what means nothing is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from infra.errors import PermanentError
from tasks.evaluation.distances import fid, inception_score, precision_recall


def _gaussians(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(200, 5)) @ random.normal(size=(5, 5))
    return mixed, random.normal(size=(150, 5)) + 1


def test_fid_is_the_closed_form_of_two_gaussians() -> None:
    first, second = _gaussians()
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(one @ other).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root)
    assert fid(first, second)["fid"] == pytest.approx(expected)
    # The distance of distributions that are known, not only of their samples: |m|² + Σ (σ − s)².
    random = np.random.default_rng(2)
    wide = random.normal(size=(200_000, 3)) * [1.0, 2.0, 3.0] + [0.0, 1.0, 2.0]
    plain = random.normal(size=(200_000, 3))
    assert fid(wide, plain)["fid"] == pytest.approx(5 + 0 + 1 + 4, rel=0.01)


def test_a_set_has_no_distance_from_itself() -> None:
    first, _ = _gaussians()
    assert fid(first, first[::-1])["fid"] == pytest.approx(0, abs=1e-8)
    assert precision_recall(first, first, 3) == {"precision": 1.0, "recall": 1.0}


def test_fid_needs_more_pictures_than_features() -> None:
    first, second = _gaussians()
    with pytest.raises(PermanentError, match=r"5 pictures on a side, and 5 features.* 6 or more"):
        fid(first, second[:5])
    assert fid(first[:6], second[:6])["fid"] > 0


def test_what_is_no_number_is_refused() -> None:
    first, second = _gaussians()
    first[0, 0] = np.nan
    for compare in (fid, lambda one, other: precision_recall(one, other, 3)):
        with pytest.raises(
            PermanentError, match="1 of 200 pictures have features that are no numb"
        ):
            compare(first, second)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_those_of_every_pair(neighbours: int) -> None:
    drawn, real = _gaussians(3)
    found = precision_recall(drawn, real, neighbours)
    assert found["precision"] == pytest.approx(_covered(drawn, real, neighbours))
    assert found["recall"] == pytest.approx(_covered(real, drawn, neighbours))
    assert 0 < found["recall"] < 1


def _covered(points: np.ndarray, centres: np.ndarray, neighbours: int) -> float:
    """The share of points that lie within some centre's distance to its k-th neighbour."""
    radii = [sorted(np.linalg.norm(centres - one, axis=1))[neighbours] for one in centres]
    inside = [
        any(np.linalg.norm(point - centre) <= radius
            for centre, radius in zip(centres, radii, strict=True))
        for point in points
    ]  # fmt: skip
    return float(np.mean(inside))


def test_precision_and_recall_need_neighbours() -> None:
    with pytest.raises(PermanentError, match="neighbours: 3, of 3 pictures"):
        precision_recall(np.eye(3), np.eye(3), 3)


def test_the_inception_score_goes_from_one_to_the_number_of_classes() -> None:
    unsure = np.zeros((40, 4), dtype=np.float32)
    assert inception_score(unsure)["inception_score"] == pytest.approx(1)
    sure = np.tile(100 * np.eye(4, dtype=np.float32), (1000, 1))
    assert inception_score(sure)["inception_score"] == pytest.approx(4, rel=0.01)
    with pytest.raises(PermanentError, match="Inception Score of 9 pictures; 10"):
        inception_score(unsure[:9])
