"""Near-dedup of many hashes: time and peak memory, and what comparing all with all would take.

    python tests/benchmarks/bench_dedup.py [--hashes 1000000 10000000] [--distance 4] [--bytes 8]

Of the hashes a tenth are copies of others with up to `distance` bits changed, and one in a thousand
is all zeros, as blank pictures are; the rest is random. Each size runs in a process of its own,
whose peak memory is the kernel's figure. It must find every planted copy. The reference is a plain
numpy scan of all pairs of the first 20,000 hashes, on one thread, whose pairs must be the same; its
time for more is extrapolated by the number of pairs, which is what it does.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scipy.sparse import coo_array  # noqa: E402
from scipy.sparse.csgraph import connected_components  # noqa: E402

from tasks.dedup.clusters import Components  # noqa: E402
from tasks.dedup.near_pairs import near_pairs  # noqa: E402

_SCANNED = 20_000


def make_hashes(count: int, size: int, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes uint8 [N, size], and of the last tenth, which are copies, whose."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (count, size), dtype=np.uint8)
    copies = count // 10
    hashes[rng.integers(copies, count - copies, count // 1000)] = 0
    sources = rng.permutation(copies)
    hashes[count - copies :] = hashes[sources]
    for _ in range(distance):
        rows = np.arange(count - copies, count)
        bits = rng.integers(0, size * 8, copies)
        hashes[rows, bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    return hashes, sources


def run_one(count: int, size: int, distance: int) -> None:
    """Find the clusters of one size, and print the figures."""
    hashes, sources = make_hashes(count, size, distance)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, pairs = time.monotonic(), 0
    components = Components(count)
    for left, right in near_pairs(hashes, distance):
        pairs += len(left)
        news = components.apart(left, right)
        components.tie(left[news], right[news])
    labels = components.labels()
    seconds = time.monotonic() - start
    assert (labels[count - len(sources) :] == labels[sources]).all(), "a planted copy is missed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{count:>11,} hashes of {size * 8} bits, distance {distance}: {seconds:7.1f} s,"
        f" peak {peak:.2f} GB ({before:.2f} before), {pairs:,} pairs,"
        f" {len(np.unique(labels)):,} distinct",
        flush=True,
    )


def scan(count: int, size: int, distance: int) -> float:
    """Seconds of comparing all with all; checks that the pairs are the same."""
    hashes, _ = make_hashes(count, size, distance)
    words = hashes.view(np.uint64)
    start, found = time.monotonic(), []
    for row in range(count - 1):
        apart = np.bitwise_count(words[row + 1 :] ^ words[row]).sum(axis=1)
        near = np.flatnonzero(apart <= distance) + row + 1
        found.append(np.stack([np.full(len(near), row), near], axis=1))
    seconds = time.monotonic() - start
    plain = np.concatenate(found)
    quick = np.concatenate([np.stack(block, axis=1) for block in near_pairs(hashes, distance)])
    quick = quick[np.lexsort((quick[:, 1], quick[:, 0]))]
    assert (plain == quick).all(), "the pairs differ from those of the scan"
    graph = coo_array((np.ones(len(plain), np.int8), plain.T), shape=(count, count))
    print(f"scan of {count:,}: {seconds:.1f} s, {connected_components(graph)[0]:,} distinct")
    return seconds


def main() -> None:
    """Measure each size, and the reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--distance", type=int, default=4)
    parser.add_argument("--bytes", type=int, default=8)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.hashes[0], options.bytes, options.distance)
        return
    for count in options.hashes:
        given = [f"--hashes={count}", f"--distance={options.distance}", f"--bytes={options.bytes}"]
        subprocess.run([sys.executable, __file__, "--one", *given], check=True)
    seconds = scan(_SCANNED, options.bytes, options.distance)
    for count in options.hashes:
        hours = seconds * (count / _SCANNED) ** 2 / 3600
        print(f"  {count:,} that way: {hours:,.1f} hours (extrapolated)")


if __name__ == "__main__":
    main()
