"""A declaration's `{month}` is every month from the first to the given one, or it is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.declaration import BoundPipeline, load_pipeline
from schemas.pipeline import DeclarationError

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
        "once.warc.gz", *(f"crawl/{month}/*.warc.gz" for month in months),
        *((f"lists/{month}/wat.paths.gz", f"s3://crawl/{month}/") for month in months),
    ]  # fmt: skip
    # A list within an entry is the one that grows; the filter stays one.
    assert sources(bound, "captions") == ["words.txt", *(f"words-{one}.txt" for one in months)]
    params: Any = bound.stages["captions"].params
    assert [next(iter(one)) for one in params.filters] == ["blocked_words", "caption_length"]


def test_a_later_month_only_adds(file: Path) -> None:
    earlier, later = (
        sources(load_pipeline(str(file), month=one)) for one in ("2026-12", "2027-02")
    )
    assert set(earlier) < set(later)


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
