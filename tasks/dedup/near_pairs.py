"""All pairs of hashes within a Hamming distance, without comparing all pairs of hashes.

For every choice of blocks of bits that near hashes may share (`bit_blocks`), hashes are sorted by
those, and only those that agree in them are compared. Nothing is missed, and each pair is told
once: by the first of the choices that it shares.

Equal hashes are looked up as one; those of one word are sorted themselves (`one_word`), those
of more by keys (`many_words`). Memory is bounded by some words a hash and one block of comparisons,
whatever the sizes of the groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tasks.dedup.bit_blocks import Split, choose_split
from tasks.dedup.many_words import mix_bits, sharing_pairs, sorted_keys
from tasks.dedup.one_word import near_neighbours, sorted_by

Pairs = tuple[np.ndarray, np.ndarray]

_BLOCK = 1 << 18  # comparisons at a time
_THREADS = 2  # that sort; what they give does not depend on how many they are


def near_pairs(hashes: np.ndarray, distance: int) -> Iterator[Pairs]:
    """Yield blocks (left, right) of indices of all pairs within `distance`, each pair once.

    Args:
        hashes: uint8 [N, bytes], of 8 bytes or a multiple.
        distance: the largest number of bits in which a pair may differ.

    Raises:
        ValueError: if the hashes have no more bits than the distance.
    """
    bits = hashes.shape[1] * 8
    if not 0 <= distance < bits:
        raise ValueError(f"distance {distance} is not between 0 and {bits - 1}, of {bits} bits")
    if not len(hashes):
        return
    words = np.ascontiguousarray(hashes).view(np.uint64)
    order, starts = _equal_together(words)
    for left, right in in_runs(starts, len(words)):
        yield _ordered(order[left], order[right])
    if distance == 0 or len(starts) < 2:
        return
    sizes = np.diff(np.append(starts, len(words)))
    for left, right in _between(np.ascontiguousarray(words[order[starts]]), distance):
        for a, b in _products(left, right, sizes):
            yield _ordered(order[starts[a[0]] + a[1]], order[starts[b[0]] + b[1]])


def _ordered(left: np.ndarray, right: np.ndarray) -> Pairs:
    return np.minimum(left, right), np.maximum(left, right)


def _equal_together(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which equal hashes stand together, rising if they are of one word, and where in
    it the runs of them start."""
    single = words.shape[1] == 1
    mixed = words[:, 0] if single else mix_bits(words, np.full(words.shape[1], ~np.uint64(0)))
    order = np.argsort(mixed)
    starts = _starts(words, order)
    if len(starts) > len(_starts(mixed[:, None], order)):  # different ones mixed to one number
        order = np.lexsort(words.T)
        starts = _starts(words, order)
    return order, starts


def _starts(words: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Where runs of equal hashes start, in the given order."""
    fresh = np.ones(len(words), dtype=bool)
    fresh[1:] = False
    for column in words.T:
        ordered = column[order]
        fresh[1:] |= ordered[1:] != ordered[:-1]
    return np.flatnonzero(fresh)


def in_runs(starts: np.ndarray, count: int) -> Iterator[Pairs]:
    """All pairs of places within each run, in blocks of bounded size."""
    ends = np.repeat(np.append(starts[1:], count), np.diff(np.append(starts, count)))
    places, step = np.arange(count), 1
    while len(places := places[places + step < ends[places]]):
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            yield block, block + step
        step += 1


def _products(
    left: np.ndarray, right: np.ndarray, sizes: np.ndarray
) -> Iterator[tuple[Pairs, Pairs]]:
    """For each pair of distinct hashes every pair of their copies, as (hash, which copy)."""
    after = np.cumsum(sizes[left] * sizes[right])
    for start in range(0, int(after[-1]) if len(after) else 0, _BLOCK):
        place = np.arange(start, min(start + _BLOCK, int(after[-1])))
        pair = np.searchsorted(after, place, side="right")
        within = place - (after[pair] - sizes[left[pair]] * sizes[right[pair]])
        copies = sizes[right[pair]]
        yield (left[pair], within // copies), (right[pair], within % copies)


def _between(words: np.ndarray, distance: int) -> Iterator[Pairs]:
    """The same of distinct hashes uint64 [N, words], as blocks of unordered pairs."""
    split = choose_split(words, distance)
    if words.shape[1] == 1 and split.shared:
        yield from _between_single(words[:, 0], distance, split)
        return
    room = max(int(len(words) - 1).bit_length(), 1)  # low bits that hold a hash's place
    below = np.uint64((1 << room) - 1)
    for choice, ordered in _ahead(split, lambda one: sorted_keys(words, split.mask(one), room)):
        for left, right in sharing_pairs(ordered, below):
            # Six times as fast as an index in brackets, for rows of four words.
            apart = words.take(left, axis=0)
            apart ^= words.take(right, axis=0)
            near = np.flatnonzero(_bits(apart) <= distance)
            if len(near):
                first = near[split.is_first(choice, apart[near])]
                yield left[first], right[first]


def _between_single(words: np.ndarray, distance: int, split: Split) -> Iterator[Pairs]:
    """The same of distinct hashes of one word, uint64 [N], in rising order."""

    def ordered(choice: tuple[int, ...]) -> np.ndarray:
        return sorted_by(words, int(split.mask(choice)[0]))

    for choice, some in _ahead(split, ordered):
        mask = int(split.mask(choice)[0])
        for one, other in near_neighbours(some, mask, distance):
            first = split.is_first(choice, (one ^ other)[:, None])
            yield np.searchsorted(words, one[first]), np.searchsorted(words, other[first])


def _bits(words: np.ndarray) -> np.ndarray:
    """How many bits are set in each row of words, uint16 [N]."""
    counts = np.bitwise_count(words)
    total = counts[:, 0].astype(np.uint16)
    for column in counts.T[1:]:  # numpy's sum over a short axis takes ten times as long
        total += column
    return total


def _ahead(
    split: Split, sort: Callable[[tuple[int, ...]], np.ndarray]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Each choice of blocks with what is sorted by it; threads sort some ahead."""
    waiting: deque[tuple[tuple[int, ...], Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for choice in split.choices():
            waiting.append((choice, pool.submit(sort, choice)))
            if len(waiting) > _THREADS:
                done, keys = waiting.popleft()
                yield done, keys.result()
        for done, keys in waiting:
            yield done, keys.result()
