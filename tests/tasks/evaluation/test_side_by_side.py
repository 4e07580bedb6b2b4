"""Two models are compared prompt by prompt, only by judges that both share."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.candidates import Prompt, PromptCandidates
from tasks.evaluation.side_by_side import (
    Shown,
    common,
    differences,
    paired_means,
    paired_shares,
    same_seeds,
)


def shown(right: list[list[bool]], scores: list[float], seed: int = 0) -> Shown:
    """Prompts of one group with two candidates each."""
    candidates, table = {}, {}
    for number, (verdicts, score) in enumerate(zip(right, scores, strict=True)):
        key = ("group", f"prompt {number}")
        candidates[key] = PromptCandidates(
            Prompt(key[1], key[0]), np.array([seed, seed + 1]),
            np.zeros((2, 3, 4, 4), np.uint8), np.array([score, score - 1]),
        )  # fmt: skip
        table[key] = {"verdicts": [{"right": one} for one in verdicts]}
    return Shown(candidates, table, ranker="r", evaluator="e")


OURS = shown([[True, True], [True, False], [False, False]], [0.5, 0.25, 0.75])
THEIRS = shown([[False, True], [True, False], [False, True]], [0.25, 0.25, 0.25])


def test_measures_are_means_over_prompts_and_differences_are_ours_less_theirs() -> None:
    found = {one.measure: one for one in differences(OURS, THEIRS)}
    assert list(found) == ["right, best-ranked", "right, average", "ranker's score, best-ranked"]
    best = found["right, best-ranked"]
    assert (best.prompts, best.first, best.second) == (3, 2 / 3, 1 / 3)
    assert best.difference == pytest.approx(1 / 3)
    average = found["right, average"]
    assert (average.first, average.second) == pytest.approx((0.5, 0.5))
    score = found["ranker's score, best-ranked"]
    assert score.difference == pytest.approx(0.25)
    back = {one.measure: one for one in differences(THEIRS, OURS)}
    for name, one in found.items():
        assert one.low is not None and one.high is not None
        assert (back[name].low, back[name].high) == pytest.approx((-one.high, -one.low))


def test_only_what_the_same_judge_said_is_compared() -> None:
    other = replace(THEIRS, evaluator="other")
    assert [one.measure for one in differences(OURS, other)] == ["ranker's score, best-ranked"]
    assert differences(OURS, replace(other, ranker="other")) == []
    nobody = replace(OURS, evaluator=None), replace(THEIRS, evaluator=None)
    assert [one.measure for one in differences(*nobody)] == ["ranker's score, best-ranked"]


def test_prompts_and_seeds_that_both_have_are_counted() -> None:
    fewer = replace(THEIRS, candidates=dict(list(THEIRS.candidates.items())[1:]))
    assert [key[1] for key in common(OURS, fewer)] == ["prompt 1", "prompt 2"]
    assert same_seeds(OURS, fewer) == 2
    assert same_seeds(OURS, shown([[True, True]] * 3, [0.0] * 3, seed=7)) == 0


def test_prompts_that_nobody_judged_are_left_out() -> None:
    table = {**OURS.table, ("group", "prompt 0"): {"verdicts": []}}
    unjudged = replace(OURS, table=table)
    assert unjudged.right(("group", "prompt 0")) == [None, None]
    found = {one.measure: one.prompts for one in differences(unjudged, THEIRS)}
    assert found["right, best-ranked"] == 2
    assert found["ranker's score, best-ranked"] == 3


def test_the_interval_of_shares_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        # 30 prompts; both right in half, ours alone in 3 of 10, theirs alone in 1 of 10.
        cells = generator.choice(4, 30, p=[0.5, 0.3, 0.1, 0.1])
        low, high = paired_shares(np.isin(cells, [0, 1]), np.isin(cells, [0, 2]))
        inside += low <= 0.2 <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.02)
    low, high = paired_shares([1.0, 0.0], [1.0, 0.0])
    assert low < 0 < high  # two prompts that agree prove little
    assert paired_shares([1.0] * 3, [0.0] * 3)[1] <= 1


def test_the_interval_of_means_is_students() -> None:
    first, second = [1.0, 2.0, 4.0, 4.0], [0.0, 2.0, 1.0, 2.0]
    gains = [1.0, 0.0, 3.0, 2.0]
    half = 3.182446 * math.sqrt(np.var(gains, ddof=1) / 4)  # t at 97.5 %, 3 degrees of freedom
    assert paired_means(first, second) == pytest.approx((1.5 - half, 1.5 + half), abs=1e-5)
    assert paired_means([1.0], [0.0]) == (None, None)
