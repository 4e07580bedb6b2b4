"""All pairs of hashes within a Hamming distance, without comparing all pairs of hashes.

Of d + 1 bands of bits, two hashes that differ in at most d bits share one whole (pigeonhole). So
hashes are sorted by each band in turn, and only those that share it are compared. Memory is bounded
by the hashes and one block of comparisons, whatever the sizes of the groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 18  # comparisons at a time
# Neighbouring bits are alike (cells of one background), and bands of such bits would be shared by
# half of all pictures. A fixed shuffle spreads the informative ones.
_SHUFFLE_SEED = 20210224


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks (left, right) of indices of all pairs within `distance`, each pair once.

    Args:
        hashes: uint8 [N, bytes].
        distance: the largest number of bits in which a pair may differ.

    Raises:
        ValueError: if the hashes have fewer bits than the distance has bands.
    """
    count, bits = len(hashes), hashes.shape[1] * 8
    if not 0 <= distance < bits:
        raise ValueError(f"distance {distance} is not between 0 and {bits - 1}, of {bits} bits")
    words = np.ascontiguousarray(hashes).view(np.uint64)
    bands = _bands(hashes, distance + 1)
    if sum(map(_pairs_within, bands)) > count * (count - 1) // 2:
        bands = [np.zeros(count, dtype=np.uint64)]  # cheaper: all share one band
    for number, band in enumerate(bands):
        for left, right in _sharing(band):
            near = np.bitwise_count(words[left] ^ words[right]).sum(axis=1) <= distance
            # A pair that shares several bands is told by the first of them.
            for earlier in bands[:number]:
                near &= earlier[left] != earlier[right]
            yield np.minimum(left, right)[near], np.maximum(left, right)[near]


def _bands(hashes: np.ndarray, number: int) -> list[np.ndarray]:
    """A value for each band of each hash; equal values are equal bands."""
    bits = np.unpackbits(hashes, axis=1)
    shuffled = bits[:, np.random.default_rng(_SHUFFLE_SEED).permutation(bits.shape[1])]
    return [_values(part) for part in np.array_split(shuffled, number, axis=1)]


def _values(bits: np.ndarray) -> np.ndarray:
    if bits.shape[1] <= 64:
        padded = np.zeros((len(bits), 64), dtype=np.uint8)
        padded[:, : bits.shape[1]] = bits
        return np.packbits(padded, axis=1).view(np.uint64)[:, 0]
    return np.unique(np.packbits(bits, axis=1), axis=0, return_inverse=True)[1].ravel()


def _pairs_within(band: np.ndarray) -> int:
    sizes = np.unique(band, return_counts=True)[1].astype(object)  # no overflow
    return int((sizes * (sizes - 1) // 2).sum())


def _sharing(band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of indices of equal bands, in blocks of bounded size."""
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    # Places whose run of equal bands goes on for `step` places; they only become fewer.
    places, step = np.arange(len(band)), 1
    while len(places):
        places = places[places + step < len(band)]
        places = places[ordered[places] == ordered[places + step]]
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            yield order[block], order[block + step]
        step += 1
