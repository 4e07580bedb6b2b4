"""Measures agree with slow, plain versions of themselves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tasks import measures


def _pixels(random: np.random.Generator, count: int = 3, side: int = 16) -> np.ndarray:
    return random.integers(0, 256, size=(count, 3, side, side), dtype=np.uint8)


def test_psnr_is_ten_times_the_log_of_peak_over_error() -> None:
    first = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    assert measures.psnr(first + np.uint8(51), first)[0] == pytest.approx(20 * math.log10(5))
    assert measures.psnr(first, first)[0] == 100.0


def test_ssim_equals_a_window_by_window_computation() -> None:
    random = np.random.default_rng(0)
    first, second = _pixels(random), _pixels(random)
    second[0] = first[0]
    found = measures.ssim(first, second)
    assert found[0] == pytest.approx(1.0)
    assert found == pytest.approx([_plain_ssim(a, b) for a, b in zip(first, second, strict=True)])


def _plain_ssim(first: np.ndarray, second: np.ndarray) -> float:
    one, other = (np.tensordot([0.299, 0.587, 0.114], p.astype(float), 1) for p in (first, second))
    axis = np.arange(11) - 5
    weights = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for row, column in itertools.product(range(one.shape[0] - 10), range(one.shape[1] - 10)):
        a, b = (p[row : row + 11, column : column + 11] for p in (one, other))
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        var_a = (weights * (a - mean_a) ** 2).sum()
        var_b = (weights * (b - mean_b) ** 2).sum()
        both = (weights * (a - mean_a) * (b - mean_b)).sum()
        top = (2 * mean_a * mean_b + 6.5025) * (2 * both + 58.5225)
        values.append(top / ((mean_a**2 + mean_b**2 + 6.5025) * (var_a + var_b + 58.5225)))
    return float(np.mean(values))


def test_clip_score_counts_negative_cosines_as_none() -> None:
    assert measures.clip_score(np.array([0.5, -0.5, 0.25])) == pytest.approx(25.0)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_best_of_is_the_mean_over_all_draws(size: int) -> None:
    values = [1.0, 0.0, 1.0, 0.25, 0.5]  # best-ranked first
    draws = itertools.combinations(range(5), size)
    expected = np.mean([values[min(draw)] for draw in draws])
    assert measures.best_of(values, size) == pytest.approx(expected)


def test_best_of_is_exact_for_the_papers_512_candidates() -> None:
    values = np.zeros(512)
    values[0] = 1  # the best of all is among n of 512 with a chance of n / 512
    for size in (1, 2, 32, 256, 512):
        assert measures.best_of(values.tolist(), size) == pytest.approx(size / 512)
        assert measures.best_of([1.0] * 512, size) == pytest.approx(1)


def test_best_of_one_is_the_average_and_of_all_the_first() -> None:
    assert measures.best_of([1, 0, 0, 0], 1) == 0.25
    assert measures.best_of([1, 0, 0, 0], 4) == 1
    with pytest.raises(ValueError, match="there are 2 candidates"):
        measures.best_of([1, 0], 3)


def test_sizes_are_powers_of_two_and_the_number_itself() -> None:
    assert measures.sizes_up_to(16) == [1, 2, 4, 8, 16]
    assert measures.sizes_up_to(6) == [1, 2, 4, 6]
    assert measures.sizes_up_to(1) == [1]


def test_rank_of_own_counts_ties_against_the_own_caption() -> None:
    similarity = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 1.0], [4.0, 3.0, 2.0]])
    assert measures.rank_of_own(similarity, np.arange(3)).tolist() == [1, 2, 3]
    assert measures.rank_of_own(similarity[None], np.array([[2, 0, 0]])).tolist() == [[2, 2, 1]]


def test_nearest_caption_is_that_of_an_exhaustive_search() -> None:
    random = np.random.default_rng(2)
    vocabulary = ["a", "red", "green", "circle", "square", "on", "white", "to", "the", "left", "of"]
    captions = [" ".join(random.choice(vocabulary, size=random.integers(2, 9))) for _ in range(300)]
    nearest = measures.NearestCaption(captions)
    for _ in range(30):
        prompt = " ".join(random.choice(vocabulary, size=random.integers(1, 9)))
        asked = measures.words(prompt)
        expected = min(_recursive(asked, measures.words(one)) for one in captions)
        found, distance = nearest.find(prompt)
        assert distance == expected == measures.word_distance(asked, measures.words(found))


def _recursive(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    known: dict[tuple[int, int], int] = {}

    def distance(i: int, j: int) -> int:
        if (i, j) not in known:
            if not i or not j:
                known[i, j] = i + j
            else:
                same = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
                known[i, j] = min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)
        return known[i, j]

    return distance(len(first), len(second))
