"""Scores: what a pipeline kept and dropped against the truth."""

from __future__ import annotations

import pyarrow as pa

from infra.demo_web.kinds import RULES, Expected, Kind, Policy
from infra.demo_web.truth import TruthRow, read_truth, score_pipeline, write_truth


def row(url, kind, group=None):
    return TruthRow(url, "page", "caption", "alt", kind, RULES[kind].expected, Policy.OPEN, group)


TRUTH = [
    row("good1", Kind.GOOD),
    row("good2", Kind.GOOD),
    row("slow1", Kind.SLOW),
    row("blank1", Kind.BLANK),
    row("blank2", Kind.BLANK),
    row("tone1", Kind.SKIN_TONE, "wave"),
    row("a1", Kind.EXACT_DUPLICATE, "a"),
    row("a2", Kind.EXACT_DUPLICATE, "a"),
    row("a3", Kind.EXACT_DUPLICATE, "a"),
    row("b1", Kind.EXACT_DUPLICATE, "b"),
    row("b2", Kind.EXACT_DUPLICATE, "b"),
]
PERFECT = ["good1", "good2", "slow1", "tone1", "a2", "b1"]


def dropped(urls, stage="filter_images", reason="near_blank"):
    return [{"image_url": url, "stage": stage, "reason": reason} for url in urls]


def scored(kept, drops=()):
    return score_pipeline(TRUTH, [{"image_url": url} for url in kept], drops)


def test_a_perfect_pipeline_catches_all_and_loses_nothing():
    score = scored(PERFECT)
    assert (score.dirt_caught, score.dirt_total) == (5, 5)
    assert (score.good_lost, score.good_total) == (0, 5)
    assert (score.catch_rate, score.loss_rate) == (1.0, 0.0)


def test_losses_and_misses_are_counted_by_kind():
    score = scored(["good1", "blank1", "a1", "a2", "b1", "unheard-of"])
    by_kind = {one.kind: one for one in score.kinds}
    assert (by_kind[Kind.GOOD].lost, by_kind[Kind.SLOW].lost) == (1, 1)
    assert (by_kind[Kind.BLANK].caught, by_kind[Kind.BLANK].total) == (1, 2)
    assert (by_kind[Kind.EXACT_DUPLICATE].caught, by_kind[Kind.EXACT_DUPLICATE].total) == (2, 3)
    assert (score.dirt_caught, score.dirt_total, score.good_lost, score.unknown) == (3, 5, 2, 1)


def test_a_group_of_which_none_is_kept_is_one_lost_pair():
    score = scored(["good1", "good2", "slow1", "b2"])
    duplicates = next(one for one in score.kinds if one.kind is Kind.EXACT_DUPLICATE)
    assert (duplicates.lost, duplicates.caught, duplicates.total) == (1, 3, 3)
    assert score.good_lost == 1


def test_either_way_is_right_for_variants():
    with_tone, without = scored(PERFECT), scored([url for url in PERFECT if url != "tone1"])
    assert (with_tone.dirt_caught, with_tone.good_lost) == (without.dirt_caught, without.good_lost)
    assert with_tone.good_total == without.good_total == 5


def test_reasons_are_counted_and_what_vanished_without_one_is_told():
    score = scored(PERFECT, dropped(["blank1", "a1"]) + dropped(["a1"], "later", "other"))
    by_kind = {one.kind: one for one in score.kinds}
    assert by_kind[Kind.BLANK].reasons == {"filter_images: near_blank": 1}
    assert by_kind[Kind.BLANK].unaccounted == 1
    assert by_kind[Kind.EXACT_DUPLICATE].reasons == {"filter_images: near_blank": 1}
    assert by_kind[Kind.EXACT_DUPLICATE].unaccounted == 2
    assert by_kind[Kind.GOOD].unaccounted == 0


def test_tables_serve_as_well_as_rows():
    kept = pa.table({"image_url": PERFECT, "caption": ["x"] * len(PERFECT)})
    drops = pa.Table.from_pylist(dropped(["blank1", "blank2", "a1", "a3", "b2"]))
    score = score_pipeline(TRUTH, kept, drops)
    assert score == scored(PERFECT, drops.to_pylist())
    assert sum(one.unaccounted for one in score.kinds) == 0
    rows = {one["kind"]: one for one in score.rows()}
    assert rows["blank"]["caught"] == 2
    assert rows["blank"]["meaning"]
    assert rows["blank"]["expected"] == "dropped"


def test_a_truth_table_survives_its_file(site, tmp_path):
    rows = read_truth(site)
    write_truth(tmp_path, rows)
    assert read_truth(tmp_path) == rows
    assert {one.expected for one in rows} == {
        Expected.KEPT,
        Expected.DROPPED,
        Expected.ONE_KEPT,
    }


def test_every_kind_has_a_rule():
    assert set(RULES) == set(Kind)
