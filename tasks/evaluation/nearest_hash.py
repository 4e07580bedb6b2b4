"""The nearest training picture of each picture to evaluate on, by perceptual hash and thumbnail.

Drawings of one scene may have one hash, so a picture is the same as another only as `dedup_images`
has it: hashes within the bound, and thumbnails that agree. Named is the one with the nearest hash
among those that are the same or, where none is, among all. A worker holds the hashes and
thumbnails of one training shard, and of one shard to evaluate on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.work import ShardWork, Work
from schemas.artifact import Unit
from tasks.dedup.described import describe_shard, read_described, read_thumbnails
from tasks.dedup.picture_hash import Likeness, Neighbours, Pictures, nearest_pictures
from tasks.evaluation.nearest import Nearest, add_nearest, nearest_of_all

HASH = "hash"
_OTHER = 257  # bits: what is not the same picture is further off than any that is


@dataclass(frozen=True)
class NearestHash(Nearest):
    """By the bits of 256 in which their hashes differ, and by their thumbnails.

    The nearness is the bits' negative; a picture that is not the same counts as `_OTHER` bits more.

    Attributes:
        mean, most: levels of 255 by which the thumbnails differ, float64 and int64 [M].
        likeness: how alike they have to be.
    """

    mean: np.ndarray
    most: np.ndarray
    likeness: Likeness

    field = "overlap_bits"

    @property
    def overlaps(self) -> np.ndarray:
        """Those that are the same."""
        return np.asarray(self.nearness > -_OTHER)

    @property
    def bits(self) -> np.ndarray:
        """In which the hashes differ, int64 [M]."""
        return np.where(self.overlaps, -self.nearness, -self.nearness - _OTHER).astype(np.int64)

    @property
    def order(self) -> np.ndarray:
        """Of equally near ones those with the most alike thumbnails first."""
        return np.lexsort((self.mean, -self.nearness))

    @property
    def said_bound(self) -> str:
        """The most bits and levels."""
        mean, most = self.likeness.mean_difference, self.likeness.most_difference
        return f"up to {self.bound:g} bits and {mean:g} levels (at most {most:g})"

    def said(self, place: int) -> str:
        """The bits and the levels."""
        mean, most = self.mean[place], self.most[place]
        return f"{self.bits[place]} bits, {mean:.1f} levels (at most {most})"

    def row(self, place: int) -> dict[str, object]:
        """`nearest_training_key_by_hash`, `bits`, `mean_difference` and `most_difference`."""
        return {
            "nearest_training_key_by_hash": self.key(place),
            "bits": int(self.bits[place]),
            "mean_difference": round(float(self.mean[place]), 6),
            "most_difference": int(self.most[place]),
        }


def nearest_by_hash(
    reference: Sequence[Unit], training: Sequence[Unit], bound: int, likeness: Likeness, work: Work
) -> NearestHash:
    """Look through all training shards for each picture of the reference's shards."""
    asked = work.map(describe_shard, reference).units("features")
    known = work.map(describe_shard, training).units("features")
    mapped = work.map(nearest_in_hashes, known, reference=asked, distance=bound, likeness=likeness)
    best = nearest_of_all(mapped, work)
    return NearestHash(
        HASH, best["keys"], best["units"], best["nearness"], bound, best["mean"], best["most"],
        likeness,
    )  # fmt: skip


def nearest_in_hashes(
    unit: Unit, shard: ShardWork, *, reference: tuple[Unit, ...], distance: int, likeness: Likeness
) -> None:
    """By hash, the nearest picture of one described training shard for each of the reference."""
    names, known = _described(shard.fetch(unit))
    if not len(names):
        return
    order = np.argsort(names, kind="stable")
    names, known = names[order], Pictures(*(column[order] for column in known))
    found = [
        nearest_pictures(_described(shard.fetch(one))[1], known, distance, likeness)
        for one in reference
    ]
    all_of = Neighbours(*(np.concatenate(column) for column in zip(*found, strict=True)))
    bits = all_of.bits + np.where(all_of.same, 0, _OTHER)
    columns = {"mean": all_of.mean, "most": all_of.most.astype(np.int64)}
    add_nearest(shard, unit, names[all_of.places], -bits.astype(np.float32), **columns)


def _described(path: Path) -> tuple[np.ndarray, Pictures]:
    """The keys of a described shard's pictures, and what they are compared by."""
    described = read_described(path)
    return described.keys, Pictures(described.hashes, read_thumbnails(path))
