"""Random numbers and permutations as functions of an index: nothing is drawn, nothing kept.

A sample's draws then do not depend on which process asks, or on what was asked before, and a
shuffle of any number of samples takes no memory.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6


def hashed(index: NDArray[np.int64], *key: int) -> NDArray[np.uint64]:
    """64 random bits for each index under a key (of integers), by SplitMix64's mixing.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), section 3.
    """
    first, second = _salt(key)
    with np.errstate(over="ignore"):
        return _mix(_mix(index.astype(np.uint64) + first) ^ second)


def chosen(index: NDArray[np.int64], ways: int, *key: int) -> NDArray[np.int64]:
    """One of `ways` for each index, each as likely as any other to within 2^-32."""
    return ((hashed(index, *key) >> np.uint64(32)) % np.uint64(ways)).astype(np.int64)


def shuffled(index: NDArray[np.int64], size: int, *key: int) -> NDArray[np.int64]:
    """Where a permutation of 0 … size - 1 under a key takes each index.

    A Feistel network permutes the smallest even number of bits that hold `size`; what falls
    outside is sent through it again until it does not.
    """
    half = max(3, -(-max(size - 1, 1).bit_length() // 2))
    place = index.astype(np.int64)
    outside = np.ones(len(place), dtype=bool)
    while outside.any():
        place[outside] = _feistel(place[outside], half, key)
        outside = place >= size
    return place


def _feistel(value: NDArray[np.int64], half: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for number in range(_ROUNDS):
        turned = (hashed(right, *key, number) >> np.uint64(64 - half)).astype(np.int64)
        left, right = right, left ^ turned
    return (left << half) | right


@lru_cache(maxsize=256)  # an update asks for few, and for the same ones as the one before
def _salt(key: tuple[int, ...]) -> tuple[np.uint64, np.uint64]:
    first, second = np.random.SeedSequence(key).generate_state(2, np.uint64)
    return first, second


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
