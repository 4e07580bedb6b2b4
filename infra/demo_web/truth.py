"""The truth about a demo site, and how a pipeline's result compares with it.

Images are known by their URLs, which the truth table holds once each. A duplicate counts against
a pipeline only beyond the first of its group that is kept, whichever that is; a group of which none
is kept is one lost good pair.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from infra.demo_web.kinds import RULES, Expected, Kind, Policy
from schemas.scene import Scene

TRUTH_FILE = "truth.jsonl"

Rows: TypeAlias = pa.Table | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class TruthRow:
    """One image of the site.

    Attributes:
        image_url: as a browser resolves it; the URL in the page where that cannot be requested.
        caption: what a collector should find; empty if there is none.
        group: names the duplicates of one picture.
        detail: which of the kind's varieties it is.
        scene: what it shows, where that is known.
    """

    image_url: str
    page_url: str
    caption: str
    caption_source: str
    kind: Kind
    expected: Expected
    policy: Policy
    group: str | None = None
    detail: str = ""
    scene: Scene | None = None


@dataclass(frozen=True)
class KindScore:
    """What became of one kind.

    Attributes:
        total: decisions asked for: images, but for duplicates those that should go.
        caught: dirt that is not among the kept.
        lost: good ones that are not among the kept.
        reasons: how often each "stage: reason" was given for its drops.
        unaccounted: images that are neither kept nor dropped with a reason.
    """

    kind: Kind
    total: int = 0
    caught: int = 0
    lost: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unaccounted: int = 0

    @property
    def expected(self) -> Expected:
        """What should have become of it."""
        return RULES[self.kind].expected

    @property
    def meaning(self) -> str:
        """The kind in words."""
        return RULES[self.kind].meaning


@dataclass(frozen=True)
class PipelineScore:
    """How a pipeline did on a site; `unknown` counts kept images that the truth does not have."""

    kinds: tuple[KindScore, ...]
    dirt_total: int
    dirt_caught: int
    good_total: int
    good_lost: int
    unknown: int

    @property
    def catch_rate(self) -> float:
        """Share of the dirt that was caught; 1 if there is none."""
        return self.dirt_caught / self.dirt_total if self.dirt_total else 1.0

    @property
    def loss_rate(self) -> float:
        """Share of the good pairs that were lost; 0 if there are none."""
        return self.good_lost / self.good_total if self.good_total else 0.0

    def rows(self) -> list[dict[str, Any]]:
        """One JSON-able row a kind, in the order of `Kind`."""
        return [
            {**asdict(one), "expected": str(one.expected), "meaning": one.meaning}
            for one in self.kinds
        ]


def score_pipeline(truth: Sequence[TruthRow], kept: Rows, drops: Rows) -> PipelineScore:
    """Compare what a pipeline kept and dropped with the truth.

    Args:
        truth: the site's truth table.
        kept: rows with `image_url`: the pairs that training would see.
        drops: rows with `image_url`, `stage` and `reason`.
    """
    kept_urls = {row["image_url"] for row in _rows(kept, ["image_url"])}
    reasons: dict[str, str] = {}
    for row in _rows(drops, ["image_url", "stage", "reason"]):
        reasons.setdefault(row["image_url"], f"{row['stage']}: {row['reason']}")
    by_kind: dict[Kind, list[TruthRow]] = defaultdict(list)
    for one in truth:
        by_kind[one.kind].append(one)
    kinds = tuple(_score(kind, by_kind[kind], kept_urls, reasons) for kind in Kind if by_kind[kind])
    dirt = [one for one in kinds if one.expected in (Expected.DROPPED, Expected.ONE_KEPT)]
    groups = sum(len(_groups(by_kind[one.kind])) for one in dirt)
    good = sum(one.total for one in kinds if one.expected is Expected.KEPT)
    return PipelineScore(
        kinds=kinds,
        dirt_total=sum(one.total for one in dirt),
        dirt_caught=sum(one.caught for one in dirt),
        good_total=good + groups,
        good_lost=sum(one.lost for one in kinds),
        unknown=len(kept_urls - {one.image_url for one in truth}),
    )


def write_truth(folder: Path, rows: Iterable[TruthRow]) -> None:
    """Write the truth table of the site in `folder`."""
    with (folder / TRUTH_FILE).open("w", encoding="utf-8") as file:
        for row in rows:
            record = asdict(row) | {"scene": row.scene.record() if row.scene else None}
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_truth(folder: Path) -> list[TruthRow]:
    """The truth table of the site in `folder`.

    Raises:
        FileNotFoundError: if there is no site.
    """
    rows = []
    with (folder / TRUTH_FILE).open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            record["scene"] = Scene.of_record(record["scene"]) if record["scene"] else None
            for name, enum in (("kind", Kind), ("expected", Expected), ("policy", Policy)):
                record[name] = enum(record[name])
            rows.append(TruthRow(**record))
    return rows


def _score(
    kind: Kind, rows: Sequence[TruthRow], kept: set[str], reasons: Mapping[str, str]
) -> KindScore:
    gone = [row.image_url for row in rows if row.image_url not in kept]
    given = Counter(reasons[url] for url in gone if url in reasons)
    unaccounted = sum(url not in reasons for url in gone)
    total, caught, lost = len(rows), 0, 0
    expected = RULES[kind].expected
    if expected is Expected.KEPT:
        lost = len(gone)
    elif expected is Expected.DROPPED:
        caught = len(gone)
    elif expected is Expected.ONE_KEPT:
        groups = _groups(rows)
        total = len(rows) - len(groups)
        lost = sum(all(row.image_url not in kept for row in group) for group in groups)
        caught = len(gone) - lost
    return KindScore(kind, total, caught, lost, dict(given.most_common()), unaccounted)


def _groups(rows: Sequence[TruthRow]) -> list[list[TruthRow]]:
    """The groups of duplicates among rows of one kind."""
    if not rows or rows[0].expected is not Expected.ONE_KEPT:
        return []
    groups: dict[str | None, list[TruthRow]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return list(groups.values())


def _rows(table: Rows, columns: list[str]) -> Iterable[Mapping[str, Any]]:
    if isinstance(table, pa.Table):
        return table.select(columns).to_pylist()
    return table
