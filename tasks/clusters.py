"""Clusters of pictures that are the same, and which of each stays.

Same bytes are the same picture. Pictures with near hashes are the same if their thumbnails agree.
What is the same as the same is the same (union-find). The survivor has the largest area and, of
those, the smallest key; so neither the clusters nor their survivors depend on the order of the
pictures or on how they were split over shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.records import DropReason
from tasks.near_pairs import near_pairs
from tasks.picture_hash import differences


@dataclass(frozen=True)
class Features:
    """What is known of pictures, one row each, in key order.

    Attributes:
        keys: 32 hex digits each, [N]; sha256: of the bytes, [N].
        area: pixels, int64 [N].
        hashes: uint8 [N, 32].
        thumbnails: uint8 [N, 768]; may lie on disk.
    """

    keys: np.ndarray
    sha256: np.ndarray
    area: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray


@dataclass(frozen=True)
class Bounds:
    """When two pictures are the same.

    Attributes:
        distance: bits in which their hashes may differ.
        mean, most: levels of 255 in which their thumbnails may differ, on average and anywhere.
    """

    distance: int
    mean: float
    most: float


def find_clusters(features: Features, bounds: Bounds) -> list[dict[str, Any]]:
    """Rows of `CLUSTER_SCHEMA` for every picture that has a double, cluster by cluster."""
    parents = np.arange(len(features.keys))
    first, copies = _same_bytes(features.sha256)
    for one, other in zip(first, copies, strict=True):
        _unite(parents, one, other)
    distinct = np.setdiff1d(np.arange(len(parents)), copies)
    for left, right in near_pairs(features.hashes[distinct], bounds.distance):
        for one, other in _confirmed(features, bounds, distinct[left], distinct[right]):
            _unite(parents, one, other)
    return [row for members in _members(parents) for row in _rows(features, members)]


def _same_bytes(sha256: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each group with the same bytes the first, beside each of the others."""
    _, first, inverse = np.unique(sha256, return_index=True, return_inverse=True)
    representative = first[inverse.ravel()]
    copies = np.flatnonzero(representative != np.arange(len(sha256)))
    return representative[copies], copies


def _confirmed(
    features: Features, bounds: Bounds, left: np.ndarray, right: np.ndarray
) -> list[tuple[int, int]]:
    mean, most = differences(features.thumbnails[left], features.thumbnails[right])
    same = (mean <= bounds.mean) & (most <= bounds.most)
    return list(zip(left[same].tolist(), right[same].tolist(), strict=True))


def _root(parents: np.ndarray, one: int) -> int:
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = int(parents[one])
    return one


def _unite(parents: np.ndarray, one: int, other: int) -> None:
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low


def _members(parents: np.ndarray) -> list[np.ndarray]:
    """The clusters of two or more, by their first member."""
    roots = np.array([_root(parents, one) for one in range(len(parents))], dtype=np.int64)
    order = np.argsort(roots, kind="stable")
    edges = np.flatnonzero(np.diff(roots[order])) + 1
    return [members for members in np.split(order, edges) if len(members) > 1]


def _rows(features: Features, members: np.ndarray) -> list[dict[str, Any]]:
    best = min(members, key=lambda one: (-features.area[one], features.keys[one]))
    others = np.bitwise_xor(features.hashes[members], features.hashes[best])
    distances = np.bitwise_count(others).sum(axis=1)
    apart, _ = differences(features.thumbnails[members], features.thumbnails[[best]])
    return [
        {
            "cluster": str(features.keys[best]),
            "key": str(features.keys[one]),
            "survivor": bool(one == best),
            "rule": _rule(features, one, best),
            "sha256": str(features.sha256[one]),
            "area": int(features.area[one]),
            "distance": int(distance),
            "difference": float(difference),
        }
        for one, distance, difference in zip(members, distances, apart, strict=True)
    ]


def _rule(features: Features, one: int, best: int) -> str:
    if one == best:
        return "survivor"
    same = features.sha256[one] == features.sha256[best]
    return DropReason.EXACT_DUPLICATE if same else DropReason.NEAR_DUPLICATE
