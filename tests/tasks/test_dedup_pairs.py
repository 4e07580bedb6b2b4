"""Dedup of pairs before download, by URL and by caption: who stays, and that no split matters."""

from functools import partial

import numpy as np
import pytest

import tasks.dedup_urls as dedup_urls_module
from infra.tables import read_table
from infra.work import Work
from schemas.artifact import PairTable
from schemas.records import CLUSTER_SCHEMA, DROP_SCHEMA, PAIR_SCHEMA
from tasks.dedup.hash_groups import AT_ONCE, whole_groups, write_groups
from tasks.dedup.minhash import band_rows, normal, resemblance, signatures
from tasks.dedup_captions import DedupCaptionsParams, dedup_captions
from tasks.dedup_urls import DedupUrlsParams, dedup_urls
from tests.tasks.pair_rows import add_pairs, pair_row


def rows(artifact, schema, work):
    return [one for unit in artifact.units for one in read_table(work.fetch(unit), schema)]


def keys(artifact, work):
    return {row["key"] for row in rows(artifact, PAIR_SCHEMA, work)}


def pairs_with_urls(count=60, urls=20, seed=0):
    rng = np.random.default_rng(seed)
    return [
        pair_row(f"caption {n} " + "x" * int(rng.integers(3)), image_url=f"http://a.test/{u}")
        for n, u in enumerate(rng.integers(0, urls, count))
    ]


def best_of(pairs):
    """The key that stays for each URL, plainly."""
    found = {}
    for pair in pairs:
        rank = (-len(pair["caption"]), pair["key"])
        found[pair["image_url"]] = min(found.get(pair["image_url"], rank), rank)
    return {rank[1] for rank in found.values()}


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_of_each_url_the_longest_caption_stays_in_any_split(tmp_path, parts):
    work, pairs = Work.local(tmp_path), pairs_with_urls()
    found = dedup_urls(add_pairs(work, pairs, parts), DedupUrlsParams(), work)

    assert keys(found.kept, work) == best_of(pairs)
    drops = rows(found.drops, DROP_SCHEMA, work)
    assert {row["reason"] for row in drops} == {"duplicate_url"}
    assert len(drops) + found.kept.records == len(pairs)
    clusters = rows(found.clusters, CLUSTER_SCHEMA, work)
    assert {r["key"] for r in clusters if r["survivor"]} <= best_of(pairs)
    by_key = {r["key"]: r for r in clusters}
    assert all(by_key[d["key"]]["cluster"] in d["detail"] for d in drops)


def add_tables(work, *tables):
    """A pair table whose parts are these."""
    return PairTable(units=tuple(unit for t in tables for unit in add_pairs(work, t).units))


def best_of_first(tables):
    """The key that stays for each URL, plainly, part by part."""
    there, found = set(), set()
    for table in tables:
        new = [pair for pair in table if pair["image_url"] not in there]
        there |= {pair["image_url"] for pair in new}
        found |= best_of(new)
    return found


@pytest.mark.parametrize("at_once", [AT_ONCE, 16])
def test_where_the_first_stays_a_later_part_takes_nothing_from_it(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(dedup_urls_module, "whole_groups", partial(whole_groups, at_once=at_once))
    work, pairs = Work.local(tmp_path), pairs_with_urls(count=90, urls=40)
    tables = [pairs[:30], pairs[30:60], pairs[60:]]
    first = DedupUrlsParams(stays="first")
    found = [dedup_urls(add_tables(work, *tables[:n]), first, work) for n in (1, 2, 3)]

    for number, months in enumerate(found, start=1):
        assert keys(months.kept, work) == best_of_first(tables[:number])
        assert months.kept.units[: number - 1] == found[number - 2].kept.units[: number - 1]
    drops = {row["key"]: row for row in rows(found[2].drops, DROP_SCHEMA, work)}
    assert len(drops) + found[2].kept.records == len(pairs)
    stays = {r["key"]: r["cluster"] for r in rows(found[2].clusters, CLUSTER_SCHEMA, work)}
    assert all(stays[key] in drop["detail"] for key, drop in drops.items())
    # Else the whole table's longest stay, which are others.
    assert keys(found[2].kept, work) != best_of(pairs)
    # What of a part stays depends on the part, not on the order of its rows.
    turned = dedup_urls(add_tables(work, *(t[::-1] for t in tables)), first, work)
    assert keys(turned.kept, work) == keys(found[2].kept, work)


def test_an_earlier_collection_goes_before_the_first(tmp_path):
    work, pairs = Work.local(tmp_path), pairs_with_urls()
    earlier = add_pairs(work, pairs[:20], 2)
    tables = [pairs[20:40], pairs[40:]]
    params = DedupUrlsParams(stays="first")
    found = dedup_urls(add_tables(work, *tables), params, work, earlier)

    there = {pair["image_url"] for pair in pairs[:20]}
    left = [[pair for pair in table if pair["image_url"] not in there] for table in tables]
    assert keys(found.kept, work) == best_of_first(left)


def test_urls_of_an_earlier_collection_do_not_come_back(tmp_path):
    work, pairs = Work.local(tmp_path), pairs_with_urls()
    earlier = add_pairs(work, pairs[:20], 2)
    found = dedup_urls(add_pairs(work, pairs[10:], 3), DedupUrlsParams(), work, earlier)

    there = {pair["image_url"] for pair in pairs[:20]}
    assert keys(found.kept, work) == best_of([p for p in pairs[20:] if p["image_url"] not in there])
    clusters = rows(found.clusters, CLUSTER_SCHEMA, work)
    old = {pair["key"] for pair in pairs[:20]}
    assert {r["key"] for r in clusters if r["rule"] == "earlier"} <= old
    assert all(r["cluster"] in old for r in clusters if r["rule"] == "earlier")
    assert any("of an earlier collection" in r["detail"] for r in rows(
        found.drops, DROP_SCHEMA, work))  # fmt: skip


def test_groups_are_whole_whatever_is_in_memory_at_a_time(tmp_path):
    rng = np.random.default_rng(1)
    kind = np.dtype([("group", "<u8"), ("item", "<u8")])
    values = rng.integers(0, 2**64, 200, dtype=np.uint64)
    paths, everything = [], []
    for number in range(5):
        part = np.zeros(400, kind)
        part["group"], part["item"] = rng.choice(values, 400), np.arange(400)
        write_groups(tmp_path / f"{number}.npy", part)
        paths.append(tmp_path / f"{number}.npy")
        everything.append(part["group"])
    found = list(whole_groups(paths, at_once=150))

    assert len(found) > 10
    groups = [set(rows["group"].tolist()) for rows in found]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert sorted(np.concatenate([r["group"] for r in found])) == sorted(np.concatenate(everything))


def grams(text):
    text = normal(text).ljust(5)
    return {text[n : n + 5] for n in range(len(text) - 4)}


def test_signatures_estimate_the_share_of_common_grams():
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(40)]
    left = [" ".join(rng.choice(words, 20)) for _ in range(150)]
    right = []
    for text in left:
        changed = text.split()
        for place in rng.integers(0, 20, rng.integers(0, 12)):
            changed[place] = str(rng.choice(words))
        right.append(" ".join(changed))
    exact = np.array(
        [
            len(grams(a) & grams(b)) / len(grams(a) | grams(b))
            for a, b in zip(left, right, strict=True)
        ]
    )
    error = resemblance(signatures(left), signatures(right)) - exact

    assert abs(error.mean()) < 0.01
    assert error.std() < 1.2 * np.sqrt((exact * (1 - exact) / 128).mean()) + 0.005
    assert (signatures(["a Red  circle!", "?!"])[0] == signatures(["A red, circle"])[0]).all()


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_next_to_nothing(similarity):
    size = band_rows(similarity)

    assert (1 - similarity**size) ** (128 // size) < 0.01


@pytest.mark.parametrize("parts", [1, 4])
def test_of_like_captions_the_longest_stays_in_any_split(tmp_path, parts):
    story = "a very long caption about the old lighthouse on the northern cliffs of the island"
    like = [story, f"{story}!", f"{story} now", story.upper(), f"{story} now"]
    other = ["a red circle", "a red circle on a blue square", "lighthouse keepers and their cats"]
    pairs = [pair_row(c, image_url=f"http://a.test/{n}") for n, c in enumerate([*like, *other])]
    work = Work.local(tmp_path)
    found = dedup_captions(add_pairs(work, pairs, parts), DedupCaptionsParams(), work)

    longest = min(p["key"] for p in pairs if p["caption"].endswith("now"))
    assert keys(found.kept, work) == {longest, *(pair["key"] for pair in pairs[5:])}
    clusters = {r["key"]: r for r in rows(found.clusters, CLUSTER_SCHEMA, work)}
    assert {r["cluster"] for r in clusters.values()} == {longest}
    assert 0 < clusters[pairs[0]["key"]]["difference"] < 0.2
    assert {r["reason"] for r in rows(found.drops, DROP_SCHEMA, work)} == {"duplicate_caption"}


def test_captions_of_an_earlier_collection_do_not_come_back(tmp_path):
    work = Work.local(tmp_path)
    earlier = add_pairs(work, [pair_row("a large red circle on a white background")])
    new = [pair_row(c, image_url="http://b.test/1") for c in (
        "A large red circle on a white background, longer", "a small blue square")]  # fmt: skip
    params = DedupCaptionsParams(similarity=0.7)
    found = dedup_captions(add_pairs(work, new), params, work, earlier)

    assert keys(found.kept, work) == {new[1]["key"]}
