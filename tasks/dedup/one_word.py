"""Hashes of 64 bits, sorted so that those which agree in some of their bits stand together.

The bits that must agree are moved to the top of each word and the words themselves are sorted: a
word beside its neighbours is compared in the processor's cache, and needs no index, for the few
words that turn out to be near are looked up among all by what they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 16  # words at a time, whose temporaries stay in the cache


def to_the_top(mask: int) -> np.ndarray:
    """For each of 64 bits the place to which it goes if those of a mask go to the top, int64."""
    chosen = np.array([mask >> bit & 1 for bit in range(64)], dtype=bool)
    order = np.concatenate([np.flatnonzero(~chosen), np.flatnonzero(chosen)])
    return np.argsort(order)


def moved(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Words uint64 [N] with each bit moved to its place; of many sixteen bits at a time."""
    if len(words) < _BLOCK:
        return _bit_by_bit(words, places)
    values = np.arange(1 << 16, dtype=np.uint64)
    tables = [_bit_by_bit(values << np.uint64(low), places) for low in (0, 16, 32, 48)]
    found = np.empty_like(words)
    parts = words.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
    for start in range(0, len(words), _BLOCK):
        part, target = parts[start : start + _BLOCK], found[start : start + _BLOCK]
        target[:] = tables[0].take(part[:, 0])
        for table, column in zip(tables[1:], part.T[1:], strict=True):
            target |= table.take(column)
    return found


def _bit_by_bit(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    found = np.zeros_like(words)
    for bit, place in enumerate(places.tolist()):
        found |= (words >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
    return found


def sorted_by(words: np.ndarray, mask: int) -> np.ndarray:
    """The words with the bits of a mask at the top, sorted."""
    found = moved(words, to_the_top(mask))
    found.sort()
    return found


def near_neighbours(
    ordered: np.ndarray, mask: int, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of words that agree in the bits of a mask and differ in at most `distance` others.

    Args:
        ordered: what `sorted_by` gave for the mask.
        distance: bits.

    Yields:
        Words as they were before, uint64 [M] each, in blocks of bounded size.
    """
    back = np.argsort(to_the_top(mask))
    limit = np.uint64(((1 << 64) - 1) >> mask.bit_count())  # an exclusive or with no chosen bit
    for start in range(0, len(ordered) - 1, _BLOCK):
        places, step = np.arange(start, min(start + _BLOCK, len(ordered) - 1)), 1
        found, count = list[tuple[np.ndarray, np.ndarray]](), 0
        while len(places):
            apart = ordered.take(places) ^ ordered.take(places + step)
            alike = np.flatnonzero(apart <= limit)
            places = places.take(alike)  # whose run of equal bits goes on for `step` places
            near = places[np.bitwise_count(apart.take(alike)) <= distance]
            if len(near):
                found.append((ordered.take(near), ordered.take(near + step)))
                count += len(near)
            step += 1
            places = places[: np.searchsorted(places, len(ordered) - step)]
            if found and (count > _BLOCK or not len(places)):
                one, other = map(np.concatenate, zip(*found, strict=True))
                yield moved(one, back), moved(other, back)
                found, count = [], 0
