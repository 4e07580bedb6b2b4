"""A declaration's `{month}` is every month from the first to the given one, or it is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.data_report import declared
from flows.declaration import BoundPipeline, load_pipeline
from flows.stage_runner import RunIds, StageRunner
from infra.environment import Environment
from infra.store import Store
from schemas.manifest import Manifest
from schemas.pipeline import DeclarationError
from tests.tasks.sources.warc_files import simple

TEXT = """\
name: monthly
first_month: 2026-11
stages:
  pairs:
    task: collect_pairs
    params:
      files:
        - "once.warc.gz"
        - "crawl/{month}/*.warc.gz"
        - {listing: "lists/{month}/wat.paths.gz", prefix: "s3://crawl/{month}/", stop: 10}
  captions:
    task: filter_captions
    inputs: {pairs: pairs}
    params:
      filters:
        - blocked_words: {files: ["words.txt", "words-{month}.txt"]}
        - caption_length: {}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "monthly.yaml"
    found.write_text(TEXT)
    return found


def sources(bound: BoundPipeline, stage: str = "pairs") -> list[Any]:
    found = bound.stages[stage].params.sources()
    return [one if isinstance(one, str) else (one.listing, one.prefix) for one in found]


def test_an_entry_stands_for_every_month_so_far(file: Path) -> None:
    bound = load_pipeline(str(file), month="2027-01")
    months = ["2026-11", "2026-12", "2027-01"]
    assert bound.month == "2027-01"
    assert sources(bound) == [
        "once.warc.gz",
        *(
            entry
            for month in months  # a later one stands behind all that was there before
            for entry in (
                f"crawl/{month}/*.warc.gz", (f"lists/{month}/wat.paths.gz", f"s3://crawl/{month}/"),
            )
        ),
    ]  # fmt: skip
    # A list within an entry is the one that grows; the filter stays one.
    assert sources(bound, "captions") == ["words.txt", *(f"words-{one}.txt" for one in months)]
    params: Any = bound.stages["captions"].params
    assert [next(iter(one)) for one in params.filters] == ["blocked_words", "caption_length"]


def test_a_later_month_only_adds(file: Path) -> None:
    earlier, later = (
        sources(load_pipeline(str(file), month=one)) for one in ("2026-12", "2027-02")
    )
    assert later[: len(earlier)] == earlier and len(later) > len(earlier)


def test_without_a_month_that_of_the_time_counts(file: Path) -> None:
    now = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert load_pipeline(str(file), now=now).month == "2026-12"
    assert load_pipeline(str(file), ["captions.dry_run=true"], "2026-11", now).month == "2026-11"


@pytest.mark.parametrize(
    ("old", "new", "month", "words"),
    [
        ("", "", "2026-10", "the month 2026-10 lies before the first, 2026-11"),
        ("", "", "2026-13", "'2026-13' is no month"),
        ("", "", "december", "'december' is no month"),
        (
            "first_month: 2026-11\n",
            "",
            None,
            ":5: stages.pairs.params: {month} needs `first_month`",
        ),
        ("first_month: 2026-11\n", "", "2026-11", "no `first_month` is declared"),
        ("2026-11", "2026-11-01", None, "first_month"),
        ("2026-11", "2026-00", None, "first_month"),
    ],
)
def test_what_makes_no_sense_is_refused(
    file: Path, old: str, new: str, month: str | None, words: str
) -> None:
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(DeclarationError) as refused:
        load_pipeline(str(file), month=month, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert words in str(refused.value)
    assert str(refused.value).startswith(str(file))


def test_a_month_outside_of_lists_is_refused(file: Path) -> None:
    file.write_text(TEXT.replace("caption_length: {}", 'language: {languages: "{month}"}'))
    with pytest.raises(DeclarationError):
        load_pipeline(str(file), month="2026-11")
    images = """\
  images:
    task: download_images
    inputs: {pairs: pairs}
    params: {user_agent: "a/1 (+https://a.test; a@a.test) {month}"}
"""
    file.write_text(TEXT + images)
    with pytest.raises(DeclarationError, match="stages.images.params: .* put it into a list"):
        load_pipeline(str(file), month="2026-11")


CRAWLS = """\
name: crawled
first_month: 2026-11
stages:
  pairs:
    task: collect_pairs
    params:
      files:
        - listing: FOLDER/{crawl}/warc.paths
          crawls: FOLDER/collinfo.json
          month: "{month}"
          prefix: FOLDER/
          stop: 2
"""


def test_crawls_without_a_month_are_refused(file: Path) -> None:
    file.write_text(CRAWLS.replace('          month: "{month}"\n', ""))
    with pytest.raises(DeclarationError, match="go together; missing: month"):
        load_pipeline(str(file), month="2026-11")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_next_month_collects_the_new_crawl_and_no_more(tmp_path: Path, file: Path) -> None:
    file.write_text(CRAWLS.replace("FOLDER", str(tmp_path)))
    ends = {"CC-MAIN-2026-46": "2026-11-20T05:00:00"}
    first = publish_and_collect(tmp_path, file, ends, "2026-11")
    # What began in November and ended in December is December's; January has none yet.
    ends |= {"CC-MAIN-2026-50": "2026-12-11T01:00:00", "CC-MAIN-2026-49": "2026-12-01T00:00:01"}
    second = publish_and_collect(tmp_path, file, ends, "2027-01")

    assert [(one.run.units_made, one.run.units_reused) for one in (first, second)] == [
        (2, 0), (4, 2),
    ]  # fmt: skip
    assert second.outputs["pairs"].units[:2] == first.outputs["pairs"].units
    of_month = [
        f"{tmp_path}/{{crawl}}/warc.paths[0:2] of {month}" for month in ("2026-11", "2026-12")
    ]
    crawls = (("46", of_month[0]), ("49", of_month[1]), ("50", of_month[1]))
    assert {one.uri: one.declared for one in second.sources} == {
        f"{tmp_path}/CC-MAIN-2026-{week}/{week}-{part}.warc.gz": label
        for week, label in crawls for part in "ab"
    }  # fmt: skip
    # What the funnel by source calls them.
    assert set(declared({"pairs": second}).values()) == set(of_month)


def publish_and_collect(folder: Path, file: Path, ends: dict[str, str], month: str) -> Manifest:
    """The manifest of `pairs` after crawls of three files, of which two are asked for."""
    listed = [{"id": crawl, "from": "2026-11-01T00:00:00", "to": to} for crawl, to in ends.items()]
    (folder / "collinfo.json").write_text(json.dumps(listed))
    for crawl, week in ((one, one[-2:]) for one in ends if not (folder / one).exists()):
        (folder / crawl).mkdir()
        names = [f"{week}-{part}.warc.gz" for part in "abc"]
        (folder / crawl / "warc.paths").write_text("".join(f"{crawl}/{name}\n" for name in names))
        for name in names[:2]:
            (folder / crawl / name).write_bytes(simple(2, host=f"{name[:4]}.test").bytes())
    environment = Environment(home=folder / "home", dask="inline")
    runner = StageRunner("crawled", Store(environment.store_url), environment)
    stage = load_pipeline(str(file), month=month).stages["pairs"]
    identity, made = runner.find(stage, {})
    assert made is None
    return runner.make(stage, {}, identity, RunIds(), lambda event: None)
