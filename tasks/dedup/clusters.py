"""Clusters of pictures that are the same, and which of each stays.

Same bytes are the same picture. Pictures with near hashes are the same if their thumbnails agree.
What is the same as the same is the same (connected components). Pictures to evaluate on stay, and
so do those of an earlier collection; else the survivor has the largest area and, of those, the
smallest key. So neither the clusters nor their survivors depend on the order of the pictures or on
how they were split over shards. Everything is done on whole columns: ten million pictures take
minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from schemas.records import DropReason
from tasks.dedup.near_pairs import near_pairs
from tasks.dedup.picture_hash import Likeness, differences

SURVIVOR, EARLIER, EVALUATION = "survivor", "earlier", "evaluation"
_DROPS = (
    DropReason.EXACT_DUPLICATE, DropReason.NEAR_DUPLICATE, DropReason.EVALUATION_PICTURE
)  # fmt: skip
_RULES = (SURVIVOR, EARLIER, EVALUATION, *_DROPS)
_WHOSE = ("", " of an earlier collection", " of a set to evaluate on")  # by `Origin`
_BLOCK = 1 << 16  # members whose distances are measured at a time
_PENDING = 1 << 20  # ties that are found before components are counted anew


class Origin(IntEnum):
    """Where a picture comes from; of one cluster the highest survives."""

    NEW = 0
    EARLIER = 1  # of a collection that stays as it is
    EVALUATION = 2  # to evaluate on, so that nothing like it is trained on


@dataclass(frozen=True)
class Features:
    """What is known of pictures, one row each, in key order.

    Attributes:
        keys: 16 bytes each, "S16" [N]; sha256: of the bytes, uint64 [N, 4].
        area: pixels, int64 [N].
        hashes: uint8 [N, 32].
        thumbnails: uint8 [N, 768]; may lie on disk.
        origin: `Origin`, int8 [N].
    """

    keys: np.ndarray
    sha256: np.ndarray
    area: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    origin: np.ndarray


@dataclass(frozen=True)
class Clusters:
    """Every picture that has a double, cluster by cluster; rows of whole columns.

    Attributes:
        members: places in the features, int64 [M]; survivors: of each one's cluster, int64 [M].
        rules: int8 [M], places in `_RULES`.
        distances: bits to the survivor, int64 [M]; apart: mean levels to it, float64 [M].
        earlier_in_evaluation: how many pictures of an earlier collection are the same as one to
            evaluate on; they are members only of clusters with a new picture.
    """

    features: Features
    members: np.ndarray
    survivors: np.ndarray
    rules: np.ndarray
    distances: np.ndarray
    apart: np.ndarray
    earlier_in_evaluation: int

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.survivors))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of `CLUSTER_SCHEMA`."""
        features = self.features
        for number, (one, best) in enumerate(zip(self.members, self.survivors, strict=True)):
            rule = _RULES[self.rules[number]]
            yield {
                "cluster": hex_of(features.keys, best),
                "key": hex_of(features.keys, one),
                "survivor": rule in (SURVIVOR, EARLIER, EVALUATION),
                "rule": rule,
                "sha256": features.sha256[one].tobytes().hex(),
                "area": int(features.area[one]),
                "distance": int(self.distances[number]),
                "difference": float(self.apart[number]),
            }

    def dropped(self) -> tuple[np.ndarray, np.ndarray]:
        """Places in the features of pictures that go, sorted, and their numbers among members."""
        numbers = np.flatnonzero(self.rules >= _RULES.index(DropReason.EXACT_DUPLICATE))
        order = np.argsort(self.members[numbers], kind="stable")
        return self.members[numbers][order], numbers[order]

    def why(self, number: int) -> tuple[str, str]:
        """Reason and detail for dropping a member."""
        rule, best = _RULES[self.rules[number]], self.survivors[number]
        survivor = hex_of(self.features.keys, best) + _WHOSE[self.features.origin[best]]
        if (self.features.sha256[self.members[number]] == self.features.sha256[best]).all():
            return rule, f"same bytes as {survivor}"
        bits, levels = self.distances[number], self.apart[number]
        return rule, f"like {survivor}: {bits} bits, {levels:.1f} levels apart"


class Components:
    """Which things belong together, by the ties that are told; counted anew now and then."""

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def apart(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Which pairs are not known to belong together, bool; some of them may by now."""
        return np.asarray(self._labels[left] != self._labels[right])

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Say that pairs belong together."""
        self._ties.append((left, right))
        self._waiting += len(left)
        if self._waiting > _PENDING:
            self._count()

    def labels(self) -> np.ndarray:
        """The same number for those that belong together, int64."""
        self._count()
        return self._labels

    def _count(self) -> None:
        if self._ties:
            left, right = (
                self._labels[np.concatenate(side)] for side in zip(*self._ties, strict=True)
            )
            size = len(self._labels)
            graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
            self._labels = connected_components(graph, directed=False)[1][self._labels].astype(
                np.int64
            )
        self._ties, self._waiting = [], 0


def find_clusters(features: Features, distance: int, likeness: Likeness) -> Clusters:
    """Every picture that has a double, with the one that stays of its cluster.

    Args:
        distance: bits in which the hashes of one picture may differ; likeness: of its thumbnails.
    """
    components = Components(len(features.keys))
    first, copies = _same_bytes(features.sha256)
    components.tie(first, copies)
    single = np.ones(len(features.keys), dtype=bool)
    single[copies] = False
    distinct = np.flatnonzero(single)
    for left, right in near_pairs(features.hashes[distinct], distance):
        one, other = distinct[left], distinct[right]
        news = components.apart(one, other)
        components.tie(*_confirmed(features, likeness, one[news], other[news]))
    return _clusters(features, components.labels())


def hex_of(keys: np.ndarray, place: int) -> str:
    """The text of a key; numpy's own drops zeros at the end."""
    return bytes(keys[place]).ljust(keys.itemsize, b"\0").hex()


def _same_bytes(sha256: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each group with the same bytes the first, beside each of the others."""
    order = np.lexsort(sha256.T)
    same = np.zeros(len(order), dtype=bool)
    same[1:] = (sha256[order[1:]] == sha256[order[:-1]]).all(axis=1)
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    return order[starts[same]], order[same]


def _confirmed(
    features: Features, likeness: Likeness, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    same = likeness.agree(*differences(features.thumbnails, left, features.thumbnails, right))
    return left[same], right[same]


def _clusters(features: Features, labels: np.ndarray) -> Clusters:
    order = np.argsort(labels, kind="stable")
    fresh = np.append(True, labels[order][1:] != labels[order][:-1])[: len(order)]
    sizes = np.diff(np.flatnonzero(fresh), append=len(order))
    first = np.repeat(order[fresh], sizes)  # of each one's cluster, in the order of clusters
    new = np.zeros(len(order), dtype=bool)  # whether anything is decided in its cluster
    new[fresh] = np.logical_or.reduceat(features.origin[order] == Origin.NEW, np.flatnonzero(fresh))
    chosen = (np.repeat(sizes, sizes) > 1) & np.repeat(new[fresh], sizes)
    members, group = order[chosen], first[chosen]
    # Clusters by their first member, and members by their place.
    arranged = np.lexsort((members, group))
    members, group = members[arranged], group[arranged]
    best = np.lexsort((members, -features.area[members], -features.origin[members], group))
    lead = np.append(True, group[best][1:] != group[best][:-1])[: len(best)]
    survivors = np.repeat(members[best[lead]], np.diff(np.flatnonzero(lead), append=len(best)))
    return Clusters(
        features, members, survivors, _rules(features, members, survivors),
        *_distances(features, members, survivors), _earlier_in_evaluation(features, labels),
    )  # fmt: skip


def _earlier_in_evaluation(features: Features, labels: np.ndarray) -> int:
    held_out = np.zeros(len(labels), dtype=bool)  # by label
    held_out[labels[features.origin == Origin.EVALUATION]] = True
    return int(held_out[labels[features.origin == Origin.EARLIER]].sum())


def _rules(features: Features, members: np.ndarray, survivors: np.ndarray) -> np.ndarray:
    same = (features.sha256[members] == features.sha256[survivors]).all(axis=1)
    exact, near, held_out = (_RULES.index(one) for one in _DROPS)
    rules = np.where(same, exact, near)
    rules[features.origin[survivors] == Origin.EVALUATION] = held_out
    rules[members == survivors] = _RULES.index(SURVIVOR)
    for origin, rule in ((Origin.EARLIER, EARLIER), (Origin.EVALUATION, EVALUATION)):
        rules[features.origin[members] == origin] = _RULES.index(rule)
    return rules.astype(np.int8)


def _distances(
    features: Features, members: np.ndarray, survivors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    bits, levels = np.zeros(len(members), np.int64), np.zeros(len(members))
    for start in range(0, len(members), _BLOCK):
        part = slice(start, start + _BLOCK)
        one, best = members[part], survivors[part]
        apart = np.bitwise_xor(features.hashes[one], features.hashes[best])
        bits[part] = np.bitwise_count(apart).sum(axis=1, dtype=np.int64)
        levels[part], _ = differences(features.thumbnails, one, features.thumbnails, best)
    return bits, levels
