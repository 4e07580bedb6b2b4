"""Parts of a pair table split into chunks, most of which stay the same when a pair comes or goes.

What is made of a chunk is known by the chunk's name and content. Were chunks cut after so many
pairs each, one pair that a filter drops next month would move all those behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from infra.gateway.outcomes import url_key
from infra.tables import read_table, write_table
from infra.work import ShardWork
from schemas.artifact import Unit
from schemas.records import PAIR_SCHEMA


def split_pairs(unit: Unit, shard: ShardWork, size: int) -> None:
    """Split a part of the table into chunks of at most `size` pairs (`halved`).

    Pairs are ordered by the hash of their image's URL, so that those which share an image are
    together and the sites are mixed. A chunk is named by where its half begins, not by how many
    come before it.
    """
    pairs = sorted(read_table(shard.fetch(unit), PAIR_SCHEMA), key=_place)
    stem = unit.name.removesuffix(".parquet")
    end = 0
    for begins, count in halved([_place(pair) for pair in pairs], size):
        start, end = end, end + count
        name = f"{stem}-{f'{begins:064x}'.rstrip('0').ljust(4, '0')}.parquet"
        rows = write_table(shard.scratch / name, pairs[start:end], PAIR_SCHEMA)
        shard.add("chunks", shard.scratch / name, name, rows)


def _place(pair: dict[str, Any]) -> int:
    """256 bits, spread evenly over images, and over the pairs of an image."""
    return int(url_key(pair["image_url"]) + pair["key"], 16)


def halved(places: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Halve the range of 256 bits, and each half, until none holds more than `size` places.

    Where a half ends depends on nothing that lies outside of it: a place that is added or taken
    away changes its own half, which at most falls into two for it or joins the one beside it. Of
    evenly spread places a half holds `size` / 2 at least, nearly.

    Args:
        places: sorted and distinct.

    Returns:
        For each half that is not empty, in order: where it begins, and how many places it holds.
    """
    return _halved(places, size, 0, 0, len(places))


def _halved(
    places: Sequence[int], size: int, begins: int, start: int, end: int
) -> Iterator[tuple[int, int]]:
    if end - start <= size:
        if end > start:
            yield begins, end - start
        return
    # All above the first bit in which they differ would be halves of which one is empty.
    bit = (places[start] ^ places[end - 1]).bit_length() - 1
    second = places[end - 1] >> bit << bit
    middle = bisect_left(places, second, start, end)
    yield from _halved(places, size, second ^ (1 << bit), start, middle)
    yield from _halved(places, size, second, middle, end)
