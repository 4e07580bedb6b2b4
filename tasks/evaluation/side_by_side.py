"""Two models on the same prompts: what differs a group, and how surely.

Prompts are the sample, so both models are compared prompt by prompt. Differences of shares have the
interval of Agresti and Min (2005), which adds half a prompt to each of the four outcomes and stays
sensible with few prompts and with none that differ; differences of means have Student's. Only what
the same judge said is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.candidates import PromptCandidates, read_candidates
from tasks.evaluation.checked import RIGHT

CONFIDENCE = 0.95
_Z = 1.959963984540054  # standard normal at 97.5 %

Key = tuple[str, str]  # group and prompt
Row = Mapping[str, Any]  # of an evaluation's table of prompts


@dataclass(frozen=True)
class Shown:
    """What one model drew for each prompt, and what its evaluation says of that."""

    candidates: Mapping[Key, PromptCandidates]
    table: Mapping[Key, Row]
    ranker: str
    evaluator: str | None

    @classmethod
    def read(cls, ranked: Iterable[Path], metrics: Row, table: Iterable[Row]) -> Shown:
        """From files of ranked candidates and the contents of `metrics.json`, `prompts.json`."""
        candidates = {
            (one.prompt.group, one.prompt.text): one
            for path in ranked
            for one in read_candidates(path).each()
        }
        rows = {(str(row["group"]), str(row["prompt"])): row for row in table}
        judge = metrics.get("evaluator")
        return cls(candidates, rows, str(metrics["ranker"]), judge["digest"] if judge else None)

    def right(self, key: Key) -> list[bool | None]:
        """Of each candidate, whether the checker finds it right; None where it was not asked."""
        verdicts = self.table[key].get("verdicts") or []
        count = len(self.candidates[key].pictures)
        return [bool(one[RIGHT]) for one in verdicts] or [None] * count


@dataclass(frozen=True)
class Difference:
    """A measure of both models over a group's prompts, and first minus second with its interval."""

    group: str
    measure: str
    prompts: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None


def common(first: Shown, second: Shown) -> list[Key]:
    """Prompts of both, in the first one's order."""
    there = second.candidates.keys() & second.table.keys()
    return [key for key in first.candidates if key in first.table and key in there]


def same_seeds(first: Shown, second: Shown) -> int:
    """How many of the common prompts were drawn with the same seeds in both."""

    def seeds(one: Shown, key: Key) -> set[int]:
        return set(one.candidates[key].seeds.tolist())

    return sum(seeds(first, key) == seeds(second, key) for key in common(first, second))


def differences(first: Shown, second: Shown) -> list[Difference]:
    """All that can be compared, by group and measure."""
    groups: dict[str, list[Key]] = {}
    for key in common(first, second):
        groups.setdefault(key[0], []).append(key)
    return [
        found
        for group, keys in groups.items()
        for measure in _measures(first, second)
        if (found := _compare(group, measure, keys, first, second))
    ]


def paired_shares(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Agresti and Min's interval of a difference of shares, from 0 or 1 for each prompt."""
    gained = sum(a > b for a, b in zip(first, second, strict=True)) + 0.5
    lost = sum(a < b for a, b in zip(first, second, strict=True)) + 0.5
    count = len(first) + 2
    middle = (gained - lost) / count
    half = _Z * math.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    return max(-1.0, middle - half), min(1.0, middle + half)


def paired_means(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float] | tuple[None, None]:
    """Student's interval of a mean difference; None of fewer than two prompts."""
    from scipy.stats import t

    if len(first) < 2:
        return None, None
    gains = np.subtract(first, second)
    half = t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
    return float(gains.mean() - half), float(gains.mean() + half)


@dataclass(frozen=True)
class _Measure:
    name: str
    of: Callable[[Shown, Key], float | None]
    is_share: bool


def _measures(first: Shown, second: Shown) -> Iterator[_Measure]:
    if first.evaluator is not None and first.evaluator == second.evaluator:
        yield _Measure("right, best-ranked", _first_right, True)
        yield _Measure("right, average", _average_right, False)
        yield _Measure("own caption first, best-ranked", _own_caption, True)
    if first.ranker == second.ranker:
        yield _Measure("ranker's score, best-ranked", _score, False)


def _first_right(shown: Shown, key: Key) -> float | None:
    right = shown.right(key)[0]
    return None if right is None else float(right)


def _average_right(shown: Shown, key: Key) -> float | None:
    right = [one for one in shown.right(key) if one is not None]
    return sum(right) / len(right) if right else None


def _own_caption(shown: Shown, key: Key) -> float | None:
    ranks = shown.table[key].get("own_caption_ranks")
    return float(ranks[0] == 1) if ranks else None


def _score(shown: Shown, key: Key) -> float | None:
    return float(shown.candidates[key].scores[0])


def _compare(
    group: str, measure: _Measure, keys: Sequence[Key], first: Shown, second: Shown
) -> Difference | None:
    both = [(measure.of(first, key), measure.of(second, key)) for key in keys]
    known = [(a, b) for a, b in both if a is not None and b is not None]
    if not known:
        return None
    ours, theirs = [a for a, _ in known], [b for _, b in known]
    interval = (paired_shares if measure.is_share else paired_means)(ours, theirs)
    means = float(np.mean(ours)), float(np.mean(theirs))
    return Difference(group, measure.name, len(known), *means, means[0] - means[1], *interval)
