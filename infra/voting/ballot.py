"""What is voted on: pairs of pictures for the same captions, in an order of each person's own.

A pair is named by its caption and its two pictures, whichever model is called first, so votes
outlive the file of votes' reader: the same pictures under another reference are the same pair.
Order and sides follow from the seed and the person's name by hashing, and need no memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass

QUESTIONS = {
    "realistic": "Which picture is more realistic?",
    "matching": "Which picture matches the caption better?",
}  # the paper's two (section 3, figure 7)


@dataclass(frozen=True)
class PairKey:
    """A pair without its pictures' bytes: `first` and `second` are their sha256."""

    id: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """A caption and the picture that each of two models drew for it, as PNG."""

    caption: str
    first: bytes
    second: bytes

    @functools.cached_property
    def key(self) -> PairKey:
        """Its name, which is the same with the pictures exchanged."""
        first, second = (hashlib.sha256(one).hexdigest() for one in (self.first, self.second))
        return PairKey(_digest(self.caption, *sorted((first, second))), first, second)

    @functools.cached_property
    def pictures(self) -> dict[str, bytes]:
        """Both pictures by their sha256."""
        return {self.key.first: self.first, self.key.second: self.second}


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: how it was named, and the digest of its pictures."""

    name: str
    digest: str


@dataclass(frozen=True)
class Ballot:
    """Two sides, their pairs, and the seed of order and sides."""

    first: Side
    second: Side
    pairs: tuple[Pair, ...]
    seed: int = 0

    @functools.cached_property
    def by_id(self) -> dict[str, Pair]:
        """The pairs by their names."""
        return {pair.key.id: pair for pair in self.pairs}

    @functools.cached_property
    def pictures(self) -> dict[str, bytes]:
        """All pictures by their sha256."""
        return {name: png for pair in self.pairs for name, png in pair.pictures.items()}

    def order(self, person: str) -> list[Pair]:
        """All pairs as this person sees them, one after the other."""
        return sorted(self.pairs, key=lambda pair: _digest(self.seed, person, pair.key.id))

    def shown(self, person: str, pair: Pair) -> tuple[str, str]:
        """The pictures of a pair, by sha256, from left to right for this person."""
        exchanged = int(_digest(self.seed, person, pair.key.id, "sides"), 16) % 2
        # Sorted first, so that exchanging the two models does not exchange the sides.
        left, right = sorted((pair.key.first, pair.key.second))
        return (right, left) if exchanged else (left, right)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
