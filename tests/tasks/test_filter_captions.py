"""Filtering captions: every pair is kept or dropped with a reason, and part by part."""

import pytest

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.tables import read_table, write_table
from infra.work import Work
from schemas.artifact import PairTable
from schemas.records import DROP_SCHEMA, FINDING_SCHEMA, PAIR_SCHEMA
from tasks.filter_captions import FilterCaptionsParams, filter_captions
from tests.tasks.pair_rows import add_pairs, pair_row

CAPTIONS = {
    "a large red circle on a white background": None,
    "ein großer roter Kreis auf weißem Grund": "wrong_language",
    "IMG_2034.JPG from my camera": "boilerplate",
    "circle": "too_short",
    "a small blue square on grey": None,
}
FILTERS = ["caption_length", {"boilerplate": None}, {"language": {"languages": ["en"]}}]


def add_part(work, name, captions):
    path = work.scratch / name
    return work.add(path, name, write_table(path, map(pair_row, captions), PAIR_SCHEMA))


def run(work, parts):
    units = tuple(add_part(work, f"p{n}.parquet", part) for n, part in enumerate(parts))
    return filter_captions(PairTable(units=units), FilterCaptionsParams(filters=FILTERS), work)


def rows(artifact, schema, work):
    return [one for unit in artifact.units for one in read_table(work.fetch(unit), schema)]


def test_every_pair_is_kept_or_dropped_with_its_reason(tmp_path):
    work = Work.local(tmp_path)
    filtered = run(work, [list(CAPTIONS)[:3], list(CAPTIONS)[3:]])

    kept = rows(filtered.kept, PAIR_SCHEMA, work)
    drops = rows(filtered.drops, DROP_SCHEMA, work)
    found = {r["caption"]: None for r in kept} | {r["caption"]: r["reason"] for r in drops}
    assert found == CAPTIONS
    assert {r["language"] for r in kept} == {"en"}
    assert all(r["detail"] and r["stage"] == "filter_captions" for r in drops)
    assert work.counts["kept"] == 2
    assert work.counts["dropped/too_short"] == 1


def test_a_new_part_leaves_the_others_alone(tmp_path):
    first = run(Work.local(tmp_path), [list(CAPTIONS)[:3]])
    work = Work.local(tmp_path)
    second = run(work, [list(CAPTIONS)[:3], list(CAPTIONS)[3:]])

    assert second.kept.units[0] == first.kept.units[0]
    assert work.reused == 1


def test_nothing_left_stops_the_run_with_the_reasons(tmp_path):
    with pytest.raises(PermanentError, match=r"no pair is left of 2 \(2 too_short\)"):
        run(Work.local(tmp_path), [["x", "y"]])


def test_the_chosen_filters_are_part_of_the_code():
    params = FilterCaptionsParams(filters=FILTERS)

    assert params.modules() == (
        "tasks.filters.caption_length", "tasks.filters.boilerplate", "tasks.filters.language",
    )  # fmt: skip


def test_a_default_that_is_written_out_is_the_same_parameter():
    short = FilterCaptionsParams(filters=["boilerplate"])
    long = FilterCaptionsParams(filters=[{"boilerplate": {"share": 0.5}}])

    assert short.identity() == long.identity()


def mixed_rows():
    rows = [pair_row(caption) for caption in CAPTIONS]
    rows += [
        pair_row("a red circle above a blue square, for jane@b.org", image_url="http://a.test/m")
    ]
    rows += [pair_row("the home of red circles", image_url=f"http://a.test/{n}") for n in range(5)]
    return rows


ALL = [*FILTERS, {"personal_data": None}, {"repeated_caption": {"images": 4}}]


def test_what_is_masked_is_written_down_and_keeps_its_key(tmp_path):
    work = Work.local(tmp_path)
    table = add_pairs(work, mixed_rows(), 2)
    found = filter_captions(table, FilterCaptionsParams(filters=ALL), work)

    original = mixed_rows()[len(CAPTIONS)]
    (masked,) = [r for r in rows(found.kept, PAIR_SCHEMA, work) if "[email]" in r["caption"]]
    assert masked["key"] == original["key"]
    assert masked["caption"] == "a red circle above a blue square, for [email]"
    (finding,) = rows(found.findings, FINDING_SCHEMA, work)
    assert (finding["key"], finding["filter"]) == (original["key"], "personal_data")
    assert finding["detail"] == "masked e-mail addresses: 1"


def test_what_another_filter_drops_is_masked_in_the_table_of_drops(tmp_path):
    caption = "IMG_1234 anna.bell@example.org"
    work = Work.local(tmp_path)
    table = add_pairs(work, [pair_row(caption), pair_row("a red circle above a small square")], 1)
    for last in ({"personal_data": None}, {"personal_data": {"emails": "keep"}}):
        filters = [{"caption_length": {"min_words": 7}}, last]
        found = filter_captions(table, FilterCaptionsParams(filters=filters), work)
        (drop,) = rows(found.drops, DROP_SCHEMA, work)
        assert drop["reason"] == "too_short"
        kept = last["personal_data"] is not None
        assert drop["caption"] == (caption if kept else "IMG_1234 [email]")


def test_a_filter_that_looks_at_the_whole_table_first(tmp_path):
    work = Work.local(tmp_path)
    params = FilterCaptionsParams(filters=ALL)
    one = filter_captions(add_pairs(work, mixed_rows(), 1), params, work)
    four = filter_captions(add_pairs(work, mixed_rows(), 4), params, work)

    def reasons(found):
        return sorted((r["key"], r["reason"]) for r in rows(found.drops, DROP_SCHEMA, work))

    assert reasons(one) == reasons(four)
    assert [why for _, why in reasons(one)].count("repeated_caption") == 5


def test_a_dry_run_drops_nothing_and_says_what_it_would_do(tmp_path):
    work = Work.local(tmp_path / "dry")
    table = add_pairs(work, mixed_rows(), 2)
    dry = filter_captions(table, FilterCaptionsParams(filters=ALL, dry_run=True), work)
    real = Work.local(tmp_path / "real")
    found = filter_captions(
        add_pairs(real, mixed_rows(), 2), FilterCaptionsParams(filters=ALL), real
    )

    assert dry.kept == table and dry.drops.units == ()
    told = rows(dry.findings, FINDING_SCHEMA, work)
    first = {}
    order = [next(iter(spec)) for spec in FilterCaptionsParams(filters=ALL).filters]
    for row in sorted(told, key=lambda row: order.index(row["filter"])):
        if row["reason"]:
            first.setdefault(row["key"], row["reason"])
    assert first == {r["key"]: r["reason"] for r in rows(found.drops, DROP_SCHEMA, real)}
    counts = {k.removeprefix("would_drop/"): n for k, n in work.counts.items() if "would" in k}
    assert counts == {
        k.removeprefix("dropped/"): n for k, n in real.counts.items() if "dropped/" in k
    }
    # Every filter saw every pair, also those that an earlier one objects to.
    assert {row["filter"] for row in told if row["key"] == mixed_rows()[3]["key"]} == set(order)
    measured = {(r["filter"], r["measure"]): r["value"] for r in told if r["measure"]
                and r["key"] == mixed_rows()[0]["key"]}  # fmt: skip
    assert measured["caption_length", "words"] == 8
    assert measured["boilerplate", "share"] == 0


def test_filters_are_asked_in_the_declared_order(tmp_path):
    work = Work.local(tmp_path)
    table = add_pairs(work, [pair_row("IMG"), pair_row("a red circle on grey")])
    reasons = []
    for filters in (["caption_length", "boilerplate"], ["boilerplate", "caption_length"]):
        found = filter_captions(table, FilterCaptionsParams(filters=filters), work)
        reasons += [row["reason"] for row in rows(found.drops, DROP_SCHEMA, work)]

    assert reasons == ["too_short", "boilerplate"]


def test_lists_in_files_are_sources(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("casino\n")
    params = FilterCaptionsParams(filters=[{"blocked_words": {"files": [str(path)]}}])
    work = Work.local(tmp_path)
    work.sources = resolve_sources(params.sources(), work.environment)
    table = add_pairs(work, [pair_row("a casino at night"), pair_row("a red circle")])
    found = filter_captions(table, params, work)

    assert [row["reason"] for row in rows(found.drops, DROP_SCHEMA, work)] == ["blocked_word"]
    path.write_text("circle\n")
    with pytest.raises(PermanentError, match="changed after the run began"):
        filter_captions(table, params, work)
