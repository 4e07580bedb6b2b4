"""Counts of units add up to those of the whole, whatever the parts, and stay bounded."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.report import summary
from infra.report.summary import OTHERS, Summary, bounded, read_summaries, words_of
from infra.tables import write_table
from infra.work import Work
from schemas.artifact import Unit
from schemas.records import DROP_SCHEMA, DropReason, drop_record
from tests.tasks.pair_rows import add_pairs, pair_row


def rows(count: int = 400) -> list[dict[str, Any]]:
    draw = random.Random(5)
    return [
        pair_row(
            " ".join(["word"] * draw.randint(1, 40)), image_url=f"http://a.test/{number}",
            domain=f"{draw.randint(0, 30)}.test", source=f"{draw.randint(0, 3)}.warc.gz",
            language=draw.choice(["en", "de", None]),
        )
        for number in range(count)
    ]  # fmt: skip


def summed(work: Work, units: tuple[Unit, ...], function: Any) -> Summary:
    found = work.map(function, units).units("summary")
    return read_summaries(work.fetch(unit) for unit in found)


@pytest.mark.parametrize("parts", [1, 3])
def test_pairs_are_counted_however_they_are_split(tmp_path: Path, parts: int) -> None:
    work, pairs = Work.local(tmp_path), rows()
    found = summed(work, add_pairs(work, pairs, parts).units, summary.summarise_pairs)
    assert found.total() == len(pairs)
    for name in ("domain", "source"):
        assert found.counts[name] == Counter(pair[name] for pair in pairs)
    assert found.counts["language"] == Counter(pair["language"] or "unknown" for pair in pairs)
    assert found.counts["words"] == Counter(words_of(pair["caption"]) for pair in pairs)


@pytest.mark.parametrize("parts", [1, 4])
def test_examples_of_drops_do_not_depend_on_the_split(tmp_path: Path, parts: int) -> None:
    work, draw = Work.local(tmp_path), random.Random(6)
    reasons = [DropReason.TOO_SHORT, DropReason.BOILERPLATE]
    drops = [drop_record(pair, "made", draw.choice(reasons), "why") for pair in rows()]
    units = []
    for number in range(parts):
        path = work.scratch / f"drops-{number}.parquet"
        count = write_table(path, drops[number::parts], DROP_SCHEMA)
        units.append(work.add(path, path.name, count))
    found = summed(work, tuple(units), summary.summarise_drops)
    assert found.counts["reason"] == Counter(str(row["reason"]) for row in drops)
    for reason in reasons:
        keys = sorted(row["key"] for row in drops if row["reason"] == str(reason))
        assert [row["key"] for row in found.examples[reason]] == keys[: summary.EXAMPLES]


def test_names_are_bounded_and_totals_stay() -> None:
    draw = random.Random(7)
    counter = Counter(int(draw.paretovariate(0.7)) for _ in range(20_000))
    named = Counter({str(name): count for name, count in counter.items()})
    found = bounded(named, 50)
    assert len(found) == 51
    assert found.total() == named.total()
    assert {name: count for name, count in found.items() if name != OTHERS} == dict(
        named.most_common(50)
    )
    again = Summary()
    for _ in range(2):  # what was put together once stays so
        again.merge(json.loads(json.dumps({"counts": {"domain": found}, "examples": {}})))
    assert again.total("domain") == 2 * named.total()


def test_a_counter_that_grows_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_MOST_NAMES_IN_ALL", 10)
    found = Summary()
    for number in range(1000):
        found.add("domain", {str(number): 1, "often": 5})
        assert len(found.counts["domain"]) <= 22
    assert found.total("domain") == 6000
    assert found.counts["domain"]["often"] == 5000


@pytest.mark.parametrize(
    ("words", "label"), [(0, "0"), (1, "1"), (2, "2"), (3, "3–4"), (4, "3–4"), (5, "5–8"),
                         (8, "5–8"), (9, "9–16"), (17, "17–32")]
)  # fmt: skip
def test_classes_of_length(words: int, label: str) -> None:
    assert words_of(" ".join(["x"] * words)) == label
