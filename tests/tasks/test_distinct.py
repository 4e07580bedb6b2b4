"""The first row of each key, whatever is in memory at a time."""

import random

import numpy as np
import pytest

from tasks.distinct import first_of_keys


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_the_first_of_all_rows_with_a_key_is_told(tmp_path, at_once):
    rng = random.Random(3)
    # Half of a key may be that of another; a key may end with zeros, which numpy does not show.
    halves = [bytes(8), *(rng.randbytes(8) for _ in range(9))]
    texts = [[rng.choice(halves) + rng.choice(halves) for _ in range(count)]
             for count in (0, 40, 1, 0, 90, 30, 0)]  # fmt: skip
    arrays = [np.frombuffer(b"".join(some), dtype="S16") for some in texts]

    seen, expected = set(), []
    for some in texts:
        expected.append([not (key in seen or seen.add(key)) for key in some])
    assert sum(map(sum, expected)) == len(seen) < 100
    found = first_of_keys(iter(arrays), tmp_path / "keys", at_once)
    assert [one.tolist() for one in found] == expected


def test_of_no_arrays_there_is_nothing(tmp_path):
    assert first_of_keys(iter(()), tmp_path / "keys") == []
