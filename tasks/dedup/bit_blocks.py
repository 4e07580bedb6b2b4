"""Which bits hashes are to be sorted by, so that all that differ in few bits stand together once.

Bits are split into blocks, and these into groups. Where two hashes differ in at most d bits, some
group of m blocks with a differing bits to spare has no more than a (pigeonhole: each group spares
a, and the a + 1 of all groups add up to d + 1), so that they share m - a of its blocks whole. For
every such choice of blocks hashes are sorted by those, and only those that agree in them are
compared. Few choices of short blocks are shared by many hashes, more choices of more blocks by
fewer: what is cheapest for the number of hashes and for how their bits really lie (looked at in a
sample) is taken. With two blocks to share the choices are as few as they can be (Turan's theorem).
Nothing is missed, and each pair is told once: by the first of the choices that it shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import numpy as np

from tasks.dedup.many_words import sorted_keys

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

    def is_first(self, choice: tuple[int, ...], apart: np.ndarray) -> np.ndarray:
        """Whether it is the first choice that pairs share, of exclusive ors uint64 [K, words].

        No group before has enough equal blocks, and of its own group they are the lowest-numbered
        equal ones.
        """
        first = np.ones(len(apart), dtype=bool)
        for group in self.groups:
            chosen = np.zeros(len(apart), dtype=np.int64)
            own = set(choice) <= set(group)
            for number in group:
                equal = ~(apart & self.masks[number]).any(axis=1) & (chosen < self.shared)
                chosen += equal
                if own:
                    first &= equal == (number in choice)
            if own:
                break
            first &= chosen < self.shared
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
    shared = [_pairs_sharing(sorted_keys(sample, split.mask(one), room) >> np.uint64(room))
              for one in tried]  # fmt: skip
    skewed = sum(shared) / len(shared) * (count / max(len(sample), 1)) ** 2
    pairs = max(evenly, skewed)
    return choices * (count * _SORT + pairs * compare + _CHOICE)


def _pairs_sharing(ordered: np.ndarray) -> int:
    sizes = np.diff(
        np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])), append=len(ordered)
    )
    return int((sizes * (sizes - 1) // 2).sum())
