"""Hashes of more than 64 bits, by keys: those which agree in some of their bits stand together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 18  # pairs at a time


def sorted_keys(words: np.ndarray, mask: np.ndarray, room: int) -> np.ndarray:
    """Sorted uint64 [N]: above, a hash of the masked bits; in the low `room` bits, whose it is.

    One array of plain numbers sorts several times faster than an order of indices is found. Two
    that collide without sharing their bits are compared in vain, and told apart by it.
    """
    found = mix_bits(words, mask)
    found >>= np.uint64(room)
    found <<= np.uint64(room)
    found |= np.arange(len(words), dtype=np.uint64)
    found.sort()
    return found


def mix_bits(words: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The masked bits of each row of words as one number, uint64 [N]."""
    found = np.zeros(len(words), dtype=np.uint64)
    for number, column in enumerate(words.T):
        if mask[number]:
            part = column & mask[number]
            part *= _factor(number)
            found += part
    return found


def _factor(number: int) -> np.uint64:
    """An odd number whose products with different bits differ in their high bits."""
    return np.uint64((0x9E3779B97F4A7C15 * (2 * number + 1)) & (2**64 - 1) | 1)


def sharing_pairs(ordered: np.ndarray, below: np.uint64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of indices whose keys are equal above the index, in blocks of bounded size."""
    places, step = np.flatnonzero((ordered[1:] ^ ordered[:-1]) <= below), 1
    while len(places):
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            left, right = ordered.take(block) & below, ordered.take(block + step) & below
            yield left.view(np.int64), right.view(np.int64)
        # Places whose run of equal keys goes on for `step` places; they only become fewer.
        step += 1
        places = places[places + step < len(ordered)]
        places = places[(ordered.take(places) ^ ordered.take(places + step)) <= below]
