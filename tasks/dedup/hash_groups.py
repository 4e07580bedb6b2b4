"""Rows of many files that share a hash, brought together in bounded memory.

Each file holds its rows sorted by a 64-bit `group`. Hashes are spread evenly, so equal ranges of
them hold about as many rows each: a range of all files is in memory at a time, and with it every
group in the range, whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

AT_ONCE = 1 << 23  # rows in memory, about


def hash_text(text: str) -> int:
    """64 bits that stand for a text; two of a billion texts share them with 3 % probability."""
    content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def write_groups(path: Path, rows: np.ndarray) -> None:
    """Write a structured array with a field `group` (uint64), sorted by it."""
    np.save(path, rows[np.argsort(rows["group"], kind="stable")])


def whole_groups(files: Sequence[Path], at_once: int = AT_ONCE) -> Iterator[np.ndarray]:
    """The rows of all files, sorted by group; no group is split over two arrays.

    Rows of a group come in the order of the files.
    """
    if not files:
        return
    # One file is open at a time: a month of Common Crawl has more than a process may open.
    total = sum(len(np.load(path, mmap_mode="r")) for path in files)
    ranges = max(1, -(-total // at_once))
    bounds = [np.uint64((number << 64) // ranges) for number in range(1, ranges)]
    edges = [_edges(path, bounds) for path in files]
    for number in range(ranges):
        parts = [
            np.array(np.load(path, mmap_mode="r")[found[number] : found[number + 1]])
            for path, found in zip(files, edges, strict=True)
        ]
        rows: np.ndarray = np.concatenate(parts)
        if len(rows):
            yield rows[np.argsort(rows["group"], kind="stable")]


def _edges(path: Path, bounds: Sequence[np.uint64]) -> list[int]:
    """Where in a file each range begins, and the end."""
    table = np.load(path, mmap_mode="r")
    return [0, *(int(np.searchsorted(table["group"], bound)) for bound in bounds), len(table)]
