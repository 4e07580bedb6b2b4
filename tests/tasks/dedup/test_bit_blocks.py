"""Whatever bits differ, a choice of blocks is clear of them; which choices, the hashes decide."""

import numpy as np
import pytest

from tasks.dedup.bit_blocks import choose_split, possible_splits


@pytest.mark.parametrize(("size", "distance"), [(8, 1), (8, 4), (8, 6), (32, 16)])
def test_every_split_misses_nothing(size, distance):
    """Bits that differ, drawn at random, and gathered in few blocks: a choice is clear of them."""
    rng = np.random.default_rng(distance)
    for split in possible_splits(size // 8, distance):
        chosen = np.array([split.mask(choice) for choice in split.choices()])
        assert len(chosen) == split.choice_count == len(np.unique(chosen, axis=0))
        for _ in range(20):
            bits = rng.permutation(size * 8)
            blocks = rng.permutation(split.masks)[: rng.integers(1, len(split.masks) + 1)]
            where = np.flatnonzero(
                np.unpackbits(blocks.view(np.uint8)).reshape(-1, size * 8).any(0)
            )
            for places in (bits[:distance], rng.permutation(where)[:distance]):
                apart = np.zeros(size * 8, bool)
                apart[places] = True
                apart = np.packbits(apart).view(np.uint64)
                assert (~(chosen & apart).any(axis=1)).any(), split


def test_skewed_bits_are_seen_before_blocks_are_chosen():
    rng = np.random.default_rng(3)
    even = rng.integers(0, 2**64, (50_000, 1), dtype=np.uint64)
    skewed = even & np.uint64(0x0F0F0F0F0F0F0F0F)  # half the bits are always zero

    wide, narrow = (choose_split(hashes, 4) for hashes in (skewed, even))
    assert wide.shared / len(wide.masks) > narrow.shared / len(narrow.masks)
