"""Chunks of a pair table: never too large, and the same ones when a pair comes or goes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from infra.tables import read_table
from infra.work import Work
from schemas.artifact import Unit
from schemas.records import PAIR_SCHEMA
from tasks.chunks import halved, split_pairs
from tests.tasks.pair_rows import add_pairs, pair_row


def row(number: int, image: int) -> dict[str, Any]:
    return pair_row(f"caption {number}", image_url=f"http://a.test/{image}.png")


def split(work: Work, pairs: list[dict[str, Any]], size: int) -> tuple[Unit, ...]:
    return work.map(split_pairs, add_pairs(work, pairs).units, size=size).units("chunks")


def test_equal_images_of_one_part_are_in_one_chunk(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    chunks = split(work, [row(n, n % 10) for n in range(40)], 20)
    sizes = [chunk.records or 0 for chunk in chunks]
    assert len(chunks) > 1 and sum(sizes) == 40 and max(sizes) <= 20
    tables = [read_table(work.fetch(chunk), PAIR_SCHEMA) for chunk in chunks]
    urls = [{pair["image_url"] for pair in table} for table in tables]
    assert sum(map(len, urls)) == len(set().union(*urls)) == 10


def bits(value: int) -> str:
    return f"{value:0256b}"


def plainly_halved(places: list[str], size: int, prefix: str = "") -> list[list[str]]:
    """The same in the words of its definition: by every bit, one after the other."""
    here = [place for place in places if place.startswith(prefix)]
    if len(here) <= size:
        return [here] if here else []
    return [part for bit in "01" for part in plainly_halved(here, size, prefix + bit)]


def drawn_places(count: int, crowded: int, seed: int) -> list[int]:
    """Places that are spread evenly, and some that share their first half, as one URL's do."""
    rng = random.Random(seed)
    url = rng.getrandbits(128) << 128
    apart = {rng.getrandbits(256) for _ in range(count - crowded)}
    return sorted(apart | {url | rng.getrandbits(128) for _ in range(crowded)})


def chunks_of(places: list[int], size: int) -> dict[int, list[int]]:
    found, rest = {}, iter(places)
    for begins, count in halved(places, size):
        found[begins] = [next(rest) for _ in range(count)]
    assert next(rest, None) is None
    return found


@pytest.mark.parametrize(("count", "crowded", "size"), [(500, 0, 20), (300, 120, 50), (64, 0, 1)])
def test_a_pair_that_comes_or_goes_changes_its_own_chunk_only(
    count: int, crowded: int, size: int
) -> None:
    places = drawn_places(count, crowded, seed=count)
    whole = chunks_of(places, size)
    assert max(map(len, whole.values())) <= size
    assert list(whole) == sorted(whole)
    expected = plainly_halved([bits(place) for place in places], size)
    assert [[bits(place) for place in chunk] for chunk in whole.values()] == expected
    for one in places:
        without = chunks_of([place for place in places if place != one], size)
        changed = {begins: part for begins, part in whole.items() if without.get(begins) != part}
        new = {begins: part for begins, part in without.items() if whole.get(begins) != part}
        # Its own, and where both fit into one now, that beside it.
        assert len(changed) <= 2 and len(new) <= 1
        assert one in changed[max(begins for begins in whole if begins <= one)]


def test_chunks_are_half_full_at_least_and_a_small_part_is_one() -> None:
    for count in (101, 150, 399, 1000, 5000):
        sizes = [number for _, number in halved(drawn_places(count, 0, seed=count), 100)]
        assert sum(sizes) / len(sizes) >= 45
    assert list(halved(drawn_places(100, 0, seed=1), 100)) == [(0, 100)]
    assert not list(halved([], 100))


def test_chunks_are_known_again_when_a_pair_is_gone(tmp_path: Path) -> None:
    """By name and content, as all that is made of them is."""
    work, pairs = Work.local(tmp_path), [row(n, n) for n in range(300)]
    before, after = (split(work, some, 30) for some in (pairs, pairs[:117] + pairs[118:]))
    assert len(before) >= 10
    assert len(set(before) - set(after)) == 1
    assert len({chunk.name for chunk in before}) == len(before)
