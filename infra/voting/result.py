"""What votes say: for each question the captions that a majority of five gave to either side.

As in the paper (section 3, figure 7): five people see each pair, and a caption counts for the side
that three of them chose. The share of captions has Wilson's interval of 95 % (1927), whose unit is
the caption: it says how far other captions might differ, not other people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.voting.ballot import QUESTIONS, PairKey
from infra.voting.votes import Vote

VOTERS = 5  # of a pair
CONFIDENCE = 0.95
INTERVAL = "Wilson, 95 %"


@dataclass(frozen=True)
class Outcome:
    """The answers to one question.

    Attributes:
        first, second: captions with a majority for that side.
        undecided: captions with fewer than five votes; they count for nobody.
        share: of `first` among the decided captions, with its interval; None if none is decided.
        by_votes: captions by how many of the five votes the first side had, from 0 to 5.
        votes_first, votes: votes for the first side and all votes, of undecided captions too.
    """

    question: str
    first: int
    second: int
    undecided: int
    share: float | None
    low: float | None
    high: float | None
    by_votes: tuple[int, ...]
    votes_first: int
    votes: int


def count(pairs: Sequence[PairKey], votes: Mapping[str, Sequence[Vote]]) -> list[Outcome]:
    """The outcome of each question, in their order."""
    return [_outcome(question, pairs, votes) for question in QUESTIONS]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a share, at `CONFIDENCE`."""
    from scipy.stats import binomtest  # takes half a second

    found = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _outcome(
    question: str, pairs: Sequence[PairKey], votes: Mapping[str, Sequence[Vote]]
) -> Outcome:
    decided: Counter[int] = Counter()
    for_first = total = 0
    for pair in pairs:
        chosen = [vote.chosen[question] == pair.first for vote in votes.get(pair.id, ())[:VOTERS]]
        for_first, total = for_first + sum(chosen), total + len(chosen)
        if len(chosen) == VOTERS:
            decided[sum(chosen)] += 1
    first = sum(number for had, number in decided.items() if 2 * had > VOTERS)
    trials = decided.total()
    low, high = wilson(first, trials) if trials else (None, None)
    return Outcome(
        question, first, trials - first, len(pairs) - trials,
        first / trials if trials else None, low, high,
        tuple(decided[had] for had in range(VOTERS + 1)), for_first, total,
    )  # fmt: skip
