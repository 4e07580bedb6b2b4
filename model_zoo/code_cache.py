"""Keys and values of the codes drawn so far, as few as their masks need, within a bound of memory.

A row or convolutional layer looks at a short run of codes before the one that is drawn, so it keeps
two such runs: when they are full, the latter is moved to the front. A column or full layer keeps
all. At 12 billion parameters (64 layers of width 3968, 1,023 places, fp32) that is 0.6 GB a
candidate instead of 2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

# What an index of cached codes may be: a run of them (read in place), or any of them (copied).
Places = slice | Tensor


class Pattern:
    """What each image position looks at under a mask, bool [T, T], of a stream whose first `before`
    positions are no codes."""

    def __init__(self, mask: Tensor, before: int) -> None:
        self.caption = mask[:before, :before]
        self.places = [_places(row[before:]) for row in mask[before:]]
        first = [one.start if isinstance(one, slice) else int(one[0]) for one in self.places]
        self.reach = max((place + 1 - one for place, one in enumerate(first)), default=0)
        """Codes from the one that is drawn back to the first that it looks at, both counted."""
        self.room = min(len(self.places), 2 * self.reach)
        """Codes that are kept."""


class CodeCache:
    """Keys and values of R rows of codes, taken in one place after the other.

    Args:
        like: of the type and on the device that they are to be.
        rows: R.
        heads, features: A and E.
    """

    def __init__(
        self, pattern: Pattern, like: Tensor, rows: int, heads: int, features: int
    ) -> None:
        self.pattern = pattern
        shape = (rows, heads, pattern.room, features)
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.first = 0  # the place that stands at the front

    def add(self, keys: Tensor, values: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Take in a place's, [R, A, E] each; all that it looks at, [R, A, n, E] each."""
        if place - self.first == self.pattern.room:
            kept = self.pattern.reach - 1
            for cache in (self.keys, self.values):
                cache[:, :, :kept] = cache[:, :, self.pattern.room - kept :]
            self.first = place - kept
        at = place - self.first
        self.keys[:, :, at], self.values[:, :, at] = keys, values
        allowed = _moved(self.pattern.places[place], self.first)
        return self.keys[:, :, allowed], self.values[:, :, allowed]


def _places(allowed: Tensor) -> Places:
    """Indices of the allowed codes: evenly spaced ones as a slice, which copies nothing."""
    found = allowed.nonzero()[:, 0]
    steps = found.diff().unique()
    if len(steps) > 1:
        return found
    step = int(steps[0]) if len(steps) else 1
    return slice(int(found[0]), int(found[-1]) + 1, step)


def _moved(places: Places, by: int) -> Places:
    if isinstance(places, slice):
        return slice(places.start - by, places.stop - by, places.step)
    return places - by if by else places


@dataclass(frozen=True)
class Budget:
    """Bytes that drawing takes, and how many candidates go together within a bound.

    Attributes:
        caption: of each prompt's keys and values.
        candidate: of each candidate's.
        matrices: of a copy of the residual blocks' matrices.
    """

    caption: int
    candidate: int
    matrices: int

    @classmethod
    def of(
        cls, patterns: Sequence[Pattern], before: int, width: int, matrices: Sequence[Tensor],
        passes: int,
    ) -> Budget:  # fmt: skip
        """The bytes of a network with these layers.

        Args:
            before: positions before the image.
            passes: rows that a candidate takes: 2 with guidance.
        """
        a_place = 2 * width * passes * matrices[0].element_size()
        return cls(
            before * len(patterns) * a_place,
            sum(pattern.room for pattern in patterns) * a_place,
            sum(one.numel() * one.element_size() for one in matrices),
        )

    def check(self, cache_gb: float, guided: bool) -> None:
        """Refuse a bound that does not hold one candidate.

        Raises:
            ValueError: with the bound and what a candidate takes.
        """
        least = self.caption + self.candidate
        if least > _bytes(cache_gb):
            twice = ", twice over for guidance" if guided else ""
            raise ValueError(
                f"cache_gb: {cache_gb:g} GB do not hold the keys and values of one candidate and"
                f" its caption, {least / 1e9} GB{twice}; give at least that much"
            )

    def copies_matrices(self, cache_gb: float) -> bool:
        """Whether copies of the matrices may take some of the bound: a fourth of what one candidate
        leaves, at most."""
        return 4 * self.matrices <= _bytes(cache_gb) - self.caption - self.candidate

    def batches(
        self, prompts: int, candidates: int, cache_gb: float, most: int
    ) -> Iterator[tuple[slice, slice]]:
        """Prompts and candidates that go together: at most `most` candidates, within the bound."""
        free = _bytes(cache_gb) - self.copies_matrices(cache_gb) * self.matrices
        fitting = (free - self.caption) // max(1, self.candidate)
        each = max(1, min(candidates, most, fitting))
        fitting = free // (self.caption + each * self.candidate)
        together = max(1, min(most // each, fitting))
        for first in range(0, prompts, together):
            for start in range(0, candidates, each):
                yield slice(first, first + together), slice(start, start + each)


def _bytes(gigabytes: float) -> int:
    return round(gigabytes * 1e9)
