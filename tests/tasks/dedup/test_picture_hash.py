"""The nearest of many hashes is that of a plain comparison of all with all."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.dedup import picture_hash
from tasks.dedup.picture_hash import HASH_BYTES, nearest_hashes


def _slow(asked: np.ndarray, known: np.ndarray) -> list[tuple[int, int]]:
    values = [int.from_bytes(one.tobytes()) for one in known]
    return [
        min(((int.from_bytes(one.tobytes()) ^ value).bit_count(), place)
            for place, value in enumerate(values))
        for one in asked
    ]  # fmt: skip


@pytest.mark.parametrize("compared", [1, 700, 1 << 18])
def test_nearest_hashes_are_those_of_all_pairs(
    compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_hash, "_COMPARED", compared)
    rng = np.random.default_rng(5)
    known = np.packbits(rng.random((90, HASH_BYTES * 8)) < 0.1, axis=1)
    known[60:] = known[:30]  # of equally near ones the first is told
    flipped = np.packbits(rng.random((40, HASH_BYTES * 8)) < 0.02, axis=1)
    far = np.packbits(rng.random((17, HASH_BYTES * 8)) < 0.9, axis=1)
    asked = np.concatenate([known[50:90] ^ flipped, known[:3], far])
    places, bits = nearest_hashes(asked, known)

    assert list(zip(bits.tolist(), places.tolist(), strict=True)) == _slow(asked, known)
    assert bits[40:43].tolist() == [0, 0, 0]


def test_hashes_may_differ_in_all_bits() -> None:
    none, every = np.zeros((1, HASH_BYTES), np.uint8), np.full((1, HASH_BYTES), 255, np.uint8)
    assert [one.tolist() for one in nearest_hashes(none, every)] == [[0], [256]]


def test_of_nothing_asked_there_is_no_nearest() -> None:
    places, bits = nearest_hashes(np.zeros((0, HASH_BYTES), np.uint8), np.zeros((2, 32), np.uint8))
    assert len(places) == len(bits) == 0


def test_nothing_known_has_no_nearest() -> None:
    with pytest.raises(ValueError, match="empty"):
        nearest_hashes(np.zeros((1, HASH_BYTES), np.uint8), np.zeros((0, HASH_BYTES), np.uint8))
