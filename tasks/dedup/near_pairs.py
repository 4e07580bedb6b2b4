"""All pairs of hashes within a Hamming distance, without comparing all pairs of hashes.

Bits are split into blocks, and these into groups. Where two hashes differ in at most d bits, some
group of m blocks with a differing bits to spare has no more than a (pigeonhole: each group spares
a, and the a + 1 of all groups add up to d + 1), so that they share m - a of its blocks whole. For
every such choice of blocks hashes are sorted by those, and only those that agree in them are
compared. Few choices of short blocks are shared by many hashes, more choices of more blocks by
fewer: what is cheapest for the number of hashes and for how their bits really lie (looked at in a
sample) is taken. With two blocks to share the choices are as few as they can be (Turan's theorem).
Nothing is missed, and each pair is told once: by the first of the choices that it shares.

Equal hashes are looked up as one; those of one word are sorted themselves (`one_word`). Memory is
bounded by some words a hash and one block of comparisons, whatever the sizes of the groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np

from tasks.dedup.one_word import near_neighbours, sorted_by

Pairs = tuple[np.ndarray, np.ndarray]

_BLOCK = 1 << 18  # comparisons at a time
_THREADS = 2  # that sort; what they give does not depend on how many they are
_SAMPLE = 1 << 14  # hashes by which the sizes of groups are estimated
# Neighbouring bits are alike (cells of one background), and blocks of such bits would be shared by
# half of all pictures. A fixed shuffle spreads the informative ones.
_SHUFFLE_SEED = 20210224
# Nanoseconds, measured: to sort one hash by a choice of blocks, and to compare one pair, of hashes
# of one word and of more, which lie anywhere in memory. Only their ratio matters.
_SORT, _COMPARE_ONE, _COMPARE, _CHOICE = 70.0, 6.0, 60.0, 200_000.0
_MOST_CHOICES = 2000


class Split(NamedTuple):
    """Blocks of bits, in groups, and how many of a group's a near pair shares in some group.

    Attributes:
        masks: each block's bits, uint64 [blocks, words].
        shared: blocks that are shared; none of them if all pairs are to be compared.
        sizes: how many blocks each group has, in the order of the masks.
    """

    masks: np.ndarray
    shared: int
    sizes: tuple[int, ...]

    @property
    def groups(self) -> list[range]:
        """The numbers of each group's blocks."""
        ends = np.cumsum(self.sizes).tolist()
        return [range(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    @property
    def choice_count(self) -> int:
        """How many choices there are."""
        return sum(comb(size, self.shared) for size in self.sizes)

    def choices(self) -> Iterator[tuple[int, ...]]:
        """Every choice of the shared blocks, in a fixed order."""
        return chain.from_iterable(combinations(group, self.shared) for group in self.groups)

    def mask(self, choice: Iterable[int]) -> np.ndarray:
        """The bits of the chosen blocks, uint64 [words]."""
        return np.bitwise_or.reduce(self.masks[list(choice)], axis=0, initial=0)


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
    mixed = words[:, 0] if single else _mixed(words, np.full(words.shape[1], ~np.uint64(0)))
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
    for choice, ordered in _ahead(split, lambda one: _keys(words, split.mask(one), room)):
        for left, right in _sharing(ordered, below):
            # Six times as fast as an index in brackets, for rows of four words.
            apart = words.take(left, axis=0)
            apart ^= words.take(right, axis=0)
            near = np.flatnonzero(_bits(apart) <= distance)
            if len(near):
                first = near[_is_first(apart[near], split, choice)]
                yield left[first], right[first]


def _between_single(words: np.ndarray, distance: int, split: Split) -> Iterator[Pairs]:
    """The same of distinct hashes of one word, uint64 [N], in rising order."""

    def ordered(choice: tuple[int, ...]) -> np.ndarray:
        return sorted_by(words, int(split.mask(choice)[0]))

    for choice, some in _ahead(split, ordered):
        mask = int(split.mask(choice)[0])
        for one, other in near_neighbours(some, mask, distance):
            first = _is_first((one ^ other)[:, None], split, choice)
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


def _keys(words: np.ndarray, mask: np.ndarray, room: int) -> np.ndarray:
    """Sorted uint64 [N]: above, a hash of the masked bits; in the low `room` bits, whose it is.

    One array of plain numbers sorts several times faster than an order of indices is found. Two
    that collide without sharing their bits are compared in vain, and told apart by it.
    """
    found = _mixed(words, mask)
    found >>= np.uint64(room)
    found <<= np.uint64(room)
    found |= np.arange(len(words), dtype=np.uint64)
    found.sort()
    return found


def _mixed(words: np.ndarray, mask: np.ndarray) -> np.ndarray:
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


def _sharing(ordered: np.ndarray, below: np.uint64) -> Iterator[Pairs]:
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


def _is_first(apart: np.ndarray, split: Split, choice: tuple[int, ...]) -> np.ndarray:
    """Whether a choice is the first that a pair shares: no group before has enough equal blocks,
    and of its own group they are the lowest-numbered equal ones."""
    first = np.ones(len(apart), dtype=bool)
    for group in split.groups:
        chosen = np.zeros(len(apart), dtype=np.int64)
        own = set(choice) <= set(group)
        for number in group:
            equal = ~(apart & split.masks[number]).any(axis=1) & (chosen < split.shared)
            chosen += equal
            if own:
                first &= equal == (number in choice)
        if own:
            break
        first &= chosen < split.shared
    return first


def choose_split(words: np.ndarray, distance: int) -> Split:
    """The split that finds near pairs of distinct hashes uint64 [N, words] with the least work."""
    sample = words[:: max(1, len(words) // _SAMPLE)]
    every = possible_splits(words.shape[1], distance)
    return min(every, key=lambda split: _cost(split, sample, len(words)))


def possible_splits(words: int, distance: int) -> Iterator[Split]:
    """All pairs as one group that shares no block; then every even split with a bounded number of
    choices, for hashes of so many words."""
    yield Split(np.zeros((1, words), np.uint64), 0, (1,))
    bits = words * 64
    for groups in range(1, max(distance, 1) + 1):  # with more, groups spare none: single blocks
        spared = [len(part) for part in np.array_split(np.arange(distance + 1), groups)]
        for shared in range(1, bits):
            sizes = tuple(spare - 1 + shared for spare in spared)
            if sum(sizes) > bits or sum(comb(size, shared) for size in sizes) > _MOST_CHOICES:
                break
            if groups == 1 or shared > 1:  # single blocks are the same in any groups
                yield Split(_masks(bits, sum(sizes)), shared, sizes)


def _masks(bits: int, blocks: int) -> np.ndarray:
    shuffled = np.random.default_rng(_SHUFFLE_SEED).permutation(bits)
    masks = np.zeros((blocks, bits), dtype=bool)
    for number, part in enumerate(np.array_split(shuffled, blocks)):
        masks[number, part] = True
    return np.packbits(masks, axis=1).view(np.uint64)


def _cost(split: Split, sample: np.ndarray, count: int) -> float:
    """Nanoseconds, about, that a split takes for `count` hashes like those of the sample."""
    choices = split.choice_count
    if not split.shared:
        return count**2 / 2 * _COMPARE
    compare = _COMPARE_ONE if sample.shape[1] == 1 else _COMPARE
    width = int(np.bitwise_count(split.masks).sum()) * split.shared // len(split.masks)
    evenly = count**2 / 2 ** (width + 1)  # pairs that share a choice if all bits were coins
    if evenly * choices > count**2 / 2:
        return float("inf")
    room = len(sample).bit_length()
    tried = [split.groups[0][: split.shared], split.groups[-1][-split.shared :]]
    shared = [_pairs_sharing(_keys(sample, split.mask(one), room) >> np.uint64(room))
              for one in tried]  # fmt: skip
    skewed = sum(shared) / len(shared) * (count / max(len(sample), 1)) ** 2
    pairs = max(evenly, skewed)
    return choices * (count * _SORT + pairs * compare + _CHOICE)


def _pairs_sharing(ordered: np.ndarray) -> int:
    sizes = np.diff(
        np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])), append=len(ordered)
    )
    return int((sizes * (sizes - 1) // 2).sum())
