"""Words of 64 bits: bits go where they are sent, and every near neighbour is found once."""

import numpy as np
import pytest

from tasks.dedup.one_word import moved, near_neighbours, sorted_by, to_the_top

MASK = 0xFF00_0000_0000_0FF1


@pytest.mark.parametrize("count", [0, 1, 1000, 70_000])  # bit by bit, and by tables
def test_bits_go_to_their_places_and_back(count):
    rng = np.random.default_rng(count)
    words = rng.integers(0, 2**64, count, dtype=np.uint64)
    places = rng.permutation(64)

    there = moved(words, places)

    # Of the first and the last words each bit as Python's integers have it.
    for word, other in zip(words[-50:].tolist(), there[-50:].tolist(), strict=True):
        assert other == sum((word >> bit & 1) << int(place) for bit, place in enumerate(places))
    assert (moved(there, np.argsort(places)) == words).all()


def test_the_bits_of_a_mask_are_sorted_first():
    words = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)

    masked = moved(sorted_by(words, MASK), np.argsort(to_the_top(MASK))) & np.uint64(MASK)

    runs = 1 + int((masked[1:] != masked[:-1]).sum())
    assert runs == len(np.unique(words & np.uint64(MASK)))


def test_near_neighbours_are_found_across_blocks_of_words_and_past_many():
    """70,000 words, of which 3,000 that agree lie where one block of comparisons ends."""
    rng = np.random.default_rng(1)
    words = np.unique(rng.integers(0, 2**64, 70_000, dtype=np.uint64))
    alike = np.sort(moved(words, to_the_top(MASK)))[64_000] >> np.uint64(64 - MASK.bit_count())
    low = rng.integers(0, 2**10, 3000, dtype=np.uint64)  # a few bits, so that many are near
    group = np.unique((alike << np.uint64(64 - MASK.bit_count())) + low)
    words = np.unique(np.append(words, moved(group, np.argsort(to_the_top(MASK)))))

    pairs = [np.stack(one, 1) for one in near_neighbours(sorted_by(words, MASK), MASK, 2)]
    found = np.sort(np.concatenate(pairs), axis=1)

    group = moved(group, np.argsort(to_the_top(MASK)))
    same = words[(words ^ group[0]) & np.uint64(MASK) == 0]
    apart = np.bitwise_count(same[:, None] ^ same[None])
    left, right = np.nonzero(np.triu(apart <= 2, 1))
    wanted = np.sort(np.stack([same[left], same[right]], 1), axis=1)
    mine = found[np.isin(found[:, 0], same)]
    assert len(wanted) > 10_000
    assert (np.unique(mine, axis=0) == np.unique(wanted, axis=0)).all() and len(mine) == len(wanted)
