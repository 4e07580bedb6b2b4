"""Near pairs: exactly those that comparing all with all finds, whatever the hashes are like."""

import numpy as np
import pytest

from tasks.dedup import near_pairs as module
from tasks.dedup.bit_blocks import choose_split, possible_splits
from tasks.dedup.many_words import _factor, mix_bits
from tasks.dedup.near_pairs import near_pairs


def slowly(hashes, distance):
    bits = np.unpackbits(hashes, axis=1).astype(int)
    apart = (bits[:, None] != bits[None]).sum(-1)
    left, right = np.nonzero(np.triu(apart <= distance, 1))
    return sorted(zip(left.tolist(), right.tolist(), strict=True))


def quickly(hashes, distance):
    return sorted(
        pair
        for left, right in near_pairs(hashes, distance)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    )


def spread(rng, count, size):
    """Random hashes, a third of them near another one."""
    hashes = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for one in range(0, count - 1, 3):
        hashes[one + 1] = hashes[one]
        for _ in range(rng.integers(0, 14)):
            hashes[one + 1, rng.integers(size)] ^= 1 << rng.integers(8)
    return hashes


def flat(rng, count, size):
    """Hashes that are nearly all zeros, as those of drawings on one colour."""
    bits = rng.random((count, size * 8)) < 0.02
    return np.packbits(bits, axis=1)


@pytest.mark.parametrize("make", [spread, flat])
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("distance", [0, 1, 5, 16])
def test_each_pair_is_found_once(make, size, distance):
    hashes = make(np.random.default_rng(distance), 250, size)

    assert quickly(hashes, distance) == slowly(hashes, distance)


@pytest.mark.parametrize(("size", "distance"), [(8, 1), (8, 3), (8, 6), (32, 8), (32, 16)])
def test_choices_of_blocks_find_what_a_scan_finds(size, distance):
    """Enough hashes that blocks are chosen, many of them copies, each pair told once."""
    rng = np.random.default_rng(size + distance)
    hashes = rng.integers(0, 256, (3000, size), dtype=np.uint8)
    hashes[1000:1500] = hashes[:500]
    for one in range(1500, 2500):
        hashes[one] = hashes[one - 1400]
        for bit in rng.integers(0, size * 8, rng.integers(0, distance + 2)):
            hashes[one, bit // 8] ^= 1 << (bit % 8)
    words = hashes.view(np.uint64)
    plain = [
        (row, other)
        for row in range(len(words))
        for other in row + 1 + np.flatnonzero(
            np.bitwise_count(words[row + 1 :] ^ words[row]).sum(axis=1) <= distance
        )
    ]  # fmt: skip

    assert choose_split(words, distance).shared > 0
    assert quickly(hashes, distance) == plain
    assert len(plain) > 900


@pytest.mark.parametrize(("size", "distance"), [(8, 4), (32, 5)])
def test_every_split_tells_each_pair_once(size, distance, monkeypatch):
    hashes = spread(np.random.default_rng(size), 200, size)
    slow = slowly(hashes, distance)
    splits = list(possible_splits(size // 8, distance))

    assert any(len(set(split.sizes)) > 1 for split in splits)
    for split in [one for one in splits if one.choice_count <= 60]:
        monkeypatch.setattr(module, "choose_split", lambda words, distance, split=split: split)
        assert quickly(hashes, distance) == slow


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_hashes(count):
    assert len(quickly(np.zeros((count, 32), dtype=np.uint8), 3)) == count // 2


def test_equal_hashes_are_all_pairs():
    assert len(quickly(np.full((60, 32), 7, dtype=np.uint8), 2)) == 60 * 59 // 2


@pytest.mark.parametrize("distance", [0, 3])
def test_hashes_that_mix_to_one_number_are_told_apart(distance):
    """a * f + b * g is the same for two pairs of words, in turns; one is there three times."""
    first, second = (int(_factor(number)) for number in range(2))
    step = -first * pow(second, -1, 2**64) % 2**64
    rows = [[5, 9], [6, (9 + step) % 2**64]] * 3
    hashes = np.array(rows, dtype=np.uint64).view(np.uint8)

    assert len(np.unique(mix_bits(hashes.view(np.uint64), np.full(2, ~np.uint64(0))))) == 1
    assert quickly(hashes, distance) == slowly(hashes, distance)


@pytest.mark.parametrize("distance", [-1, 256])
def test_a_distance_beyond_the_bits_is_refused(distance):
    with pytest.raises(ValueError, match="is not between 0 and 255"):
        quickly(np.zeros((3, 32), dtype=np.uint8), distance)


def test_a_hundred_thousand_hashes_take_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (100_000, 32), dtype=np.uint8)
    hashes[:1000] = hashes[50_000:51_000]

    assert len(quickly(hashes, 8)) == 1000
