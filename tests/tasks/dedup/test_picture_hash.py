"""The nearest of many pictures is that of a plain comparison of all with all."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.dedup import picture_hash
from tasks.dedup.picture_hash import (
    HASH_BYTES,
    THUMBNAIL_BYTES,
    Likeness,
    Neighbours,
    Pictures,
    differences,
    nearest_pictures,
)

_LIKENESS = Likeness(mean_difference=2.0, most_difference=30)


def _slow(
    asked: Pictures, known: Pictures, distance: int, likeness: Likeness
) -> list[tuple[int, bool, int, float, int]]:
    found = []
    for value, cells in zip(asked.hashes, asked.thumbnails.tolist(), strict=True):
        others = []
        for place, (other, theirs) in enumerate(zip(*known, strict=True)):
            bits = (int.from_bytes(value.tobytes()) ^ int.from_bytes(other.tobytes())).bit_count()
            apart = [abs(a - b) for a, b in zip(cells, theirs.tolist(), strict=True)]
            mean, most = sum(apart) / len(apart), max(apart)
            near = bits <= distance
            same = near and mean <= likeness.mean_difference and most <= likeness.most_difference
            others.append((not same, bits, place, mean, most))
        other, bits, place, mean, most = min(others)
        found.append((place, not other, bits, mean, most))
    return found


def _rows(found: Neighbours) -> list[tuple[int, bool, int, float, int]]:
    return list(zip(*(column.tolist() for column in found), strict=True))


def _pictures(rng: np.random.Generator) -> tuple[Pictures, Pictures]:
    """Asked and known: groups with hashes near to one another, and few kinds of thumbnails."""
    groups = np.packbits(rng.random((6, HASH_BYTES * 8)) < 0.5, axis=1)
    kinds = rng.integers(0, 200, (4, THUMBNAIL_BYTES), dtype=np.uint8)

    def some(count: int) -> Pictures:
        flipped = np.packbits(rng.random((count, HASH_BYTES * 8)) < 0.012, axis=1)
        thumbnails = kinds[rng.integers(0, 4, count)] + rng.integers(0, 4, (count, 1))
        thumbnails[:, 0] += rng.choice([0, 29, 50], count)  # much in one place
        hashes = groups[rng.integers(0, 6, count)] ^ flipped
        return Pictures(hashes, thumbnails.astype(np.uint8))

    asked, known = some(60), some(90)
    for column in known:
        column[60:] = column[:30]  # of equally near ones the first is told
    far = np.packbits(rng.random((10, HASH_BYTES * 8)) < 0.9, axis=1)
    asked.hashes[:10] = far
    asked.hashes[10:20], asked.thumbnails[10:20] = known.hashes[50:60], known.thumbnails[50:60]
    return asked, known


@pytest.mark.parametrize(("compared", "confirmed"), [(1, 1), (700, 3), (1 << 18, 1 << 12)])
def test_nearest_pictures_are_those_of_all_pairs(
    compared: int, confirmed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_hash, "_COMPARED", compared)
    monkeypatch.setattr(picture_hash, "_CONFIRMED", confirmed)
    asked, known = _pictures(np.random.default_rng(5))
    found = nearest_pictures(asked, known, 6, _LIKENESS)

    assert _rows(found) == _slow(asked, known, 6, _LIKENESS)
    assert found.same[10:20].all() and not found.same[:10].any()
    by_hash = nearest_pictures(asked, known, 0, _LIKENESS)  # as good as by hash alone
    passed = found.same & (found.bits > by_hash.bits)
    assert passed.sum() > 5  # a nearer hash whose thumbnail does not agree is not named
    assert (~found.same & (found.bits <= 6)).sum() > 5  # and alone it makes none the same


def test_the_bounds_themselves_are_within() -> None:
    asked, known = (
        Pictures(np.zeros((1, 32), np.uint8), np.full((1, 768), 9, np.uint8)) for _ in "ab"
    )
    known.hashes[0, 0] = 0b111
    known.thumbnails[0, :384] += 4  # on average 2
    for distance, mean, most, same in (
        (3, 2.0, 4, True), (2, 2.0, 4, False), (3, 1.99, 4, False), (3, 2.0, 3.9, False),
    ):  # fmt: skip
        bounds = Likeness(mean_difference=mean, most_difference=most)
        assert _rows(nearest_pictures(asked, known, distance, bounds)) == [(0, same, 3, 2.0, 4)]


def test_pictures_may_differ_in_everything() -> None:
    none = Pictures(np.zeros((1, HASH_BYTES), np.uint8), np.zeros((1, THUMBNAIL_BYTES), np.uint8))
    every = Pictures(*(255 - column for column in none))
    assert _rows(nearest_pictures(none, every, 64, Likeness())) == [(0, False, 256, 255.0, 255)]


def test_of_nothing_asked_there_is_no_nearest() -> None:
    asked = Pictures(np.zeros((0, 32), np.uint8), np.zeros((0, 768), np.uint8))
    known = Pictures(np.zeros((2, 32), np.uint8), np.zeros((2, 768), np.uint8))
    assert _rows(nearest_pictures(asked, known, 16, Likeness())) == []


def test_nothing_known_has_no_nearest() -> None:
    asked = Pictures(np.zeros((1, 32), np.uint8), np.zeros((1, 768), np.uint8))
    known = Pictures(np.zeros((0, 32), np.uint8), np.zeros((0, 768), np.uint8))
    with pytest.raises(ValueError, match="empty"):
        nearest_pictures(asked, known, 16, Likeness())


def test_differences_are_those_of_the_rows_that_are_named() -> None:
    rng = np.random.default_rng(1)
    left, right = (rng.integers(0, 256, (count, 768), dtype=np.uint8) for count in (5, 7))
    lefts, rights = rng.integers(0, 5, 40), rng.integers(0, 7, 40)
    mean, most = differences(left, lefts, right, rights)
    apart = [np.abs(left[i].astype(int) - right[j]) for i, j in zip(lefts, rights, strict=True)]
    assert mean.tolist() == [one.mean() for one in apart]
    assert most.tolist() == [one.max() for one in apart]
