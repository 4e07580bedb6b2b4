"""Filtering captions: every pair is kept or dropped with a reason, and part by part."""

import pytest

from infra.errors import PermanentError
from infra.tables import read_table, write_table
from infra.work import Work
from schemas.artifact import PairTable
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA, pair_key
from tasks.filter_captions import FilterCaptionsParams, filter_captions

CAPTIONS = {
    "a large red circle on a white background": None,
    "ein großer roter Kreis auf weißem Grund": "wrong_language",
    "IMG_2034.JPG from my camera": "boilerplate",
    "circle": "too_short",
    "a small blue square on grey": None,
}
FILTERS = ["caption_length", {"boilerplate": None}, {"language": {"languages": ["en"]}}]


def row(caption):
    url = "http://a.test/"
    return {
        "key": pair_key(url, url, caption), "image_url": url, "page_url": url, "domain": "a.test",
        "caption": caption, "caption_source": "alt", "source": "x", "offset": 0,
        "language": None, "opt_out": None,
    }  # fmt: skip


def add_part(work, name, captions):
    path = work.scratch / name
    return work.add(path, name, write_table(path, map(row, captions), PAIR_SCHEMA))


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
