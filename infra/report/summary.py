"""What one unit of data holds, counted: what a report on any number of units adds up.

Each function is called once for a unit by `Work.map`, which keeps what it gave: next month only
new units are read. Names that are counted (domains) are bounded for each unit and for the sum; what
goes over the bound is counted together, so that totals stay right.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from infra.shards import Sample, read_shard
from infra.tables import read_table
from infra.work import ShardWork
from schemas.artifact import DropTable, ImageShards, PairTable, Unit
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA, require_schema

OTHERS = "(others)"
UNKNOWN = "unknown"  # language
EXAMPLES = 6  # kept of each reason
_MOST_NAMES = 2_000  # of one unit
_MOST_NAMES_IN_ALL = 100_000
_MOST_TEXT = 300  # characters of an example's texts
_BATCH = 8192  # rows

Counts = dict[str, Counter[str]]
Row = Mapping[str, Any]


class Summary:
    """Counters by what they count, and examples by reason.

    Counters: `rows`; pairs and images by `source`, `domain`, `words`, `language`; images also by
    `side` and `aspect`, and `bytes` of their files by domain; drops by `reason`.
    """

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.examples: dict[str, list[dict[str, str]]] = {}

    def add(self, what: str, values: Mapping[str, int]) -> None:
        """Add to one counter; its rarest names are put together when there are too many."""
        counter = self.counts.setdefault(what, Counter())
        counter.update(values)
        if len(counter) > 2 * _MOST_NAMES_IN_ALL:
            self.counts[what] = bounded(counter, _MOST_NAMES_IN_ALL)

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what `as_json` of another one gave."""
        for what, values in other["counts"].items():
            self.add(what, values)
        for reason, rows in other["examples"].items():
            both = [*self.examples.get(reason, []), *rows]
            self.examples[reason] = sorted(both, key=lambda row: row["key"])[:EXAMPLES]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        counts = {what: dict(bounded(one, _MOST_NAMES)) for what, one in self.counts.items()}
        return {"counts": counts, "examples": self.examples}

    def of(self, what: str) -> Counter[str]:
        """A counter; an empty one if nothing of the kind was counted."""
        return self.counts.get(what, Counter())

    def total(self, what: str = "rows") -> int:
        """Sum of a counter."""
        return self.of(what).total()


def bounded(counter: Counter[str], most: int) -> Counter[str]:
    """The most frequent names, and all the others together."""
    if len(counter) <= most:
        return counter
    kept = Counter(dict(counter.most_common(most)))
    kept[OTHERS] += counter.total() - kept.total()
    return kept


def summarise_pairs(unit: Unit, shard: ShardWork) -> None:
    """Count one part of a pair table."""
    found, path = Summary(), shard.fetch(unit)
    with pq.ParquetFile(path) as file:
        require_schema(file.schema_arrow, PAIR_SCHEMA, path.name)
        for batch in file.iter_batches(_BATCH, columns=["source", "domain", "language", "caption"]):
            columns = {name: batch[name].to_pylist() for name in batch.schema.names}
            found.add("rows", {"": batch.num_rows})
            for name in ("source", "domain"):
                found.add(name, Counter(columns[name]))
            found.add("language", Counter(one or UNKNOWN for one in columns["language"]))
            found.add("words", Counter(words_of(one) for one in columns["caption"]))
    _keep(found, unit, shard)


def summarise_drops(unit: Unit, shard: ShardWork) -> None:
    """Count one part of a drop table; its examples are those with the smallest keys, which are
    hashes, so that they are as good as drawn by lot, and the same every time."""
    found = Summary()
    least: dict[str, list[tuple[int, int, dict[str, str]]]] = {}
    for number, row in enumerate(read_table(shard.fetch(unit), DROP_SCHEMA)):
        found.add("rows", {"": 1})
        for name in ("reason", "source", "domain"):
            found.add(name, {row[name]: 1})
        heap = least.setdefault(row["reason"], [])
        entry = (-int(row["key"], 16), number, row)
        if len(heap) < EXAMPLES:
            heapq.heappush(heap, (*entry[:2], _example(row, unit)))
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, (*entry[:2], _example(row, unit)))
    for reason, heap in least.items():
        found.examples[reason] = [row for *_, row in sorted(heap, reverse=True)]
    _keep(found, unit, shard)


def summarise_images(unit: Unit, shard: ShardWork) -> None:
    """Count one shard."""
    found = Summary()
    for sample in read_shard(shard.fetch(unit)):
        record, domain = sample.record, str(sample.record.get("domain", ""))
        found.add("rows", {"": 1})
        found.add("source", {str(record.get("source", "")): 1})
        found.add("domain", {domain: 1})
        found.add("bytes", {domain: len(sample.image)})
        found.add("language", {record.get("language") or UNKNOWN: 1})
        found.add("words", {words_of(sample.caption): 1})
        for what, name in _shape(sample).items():
            found.add(what, {name: 1})
    _keep(found, unit, shard)


SUMMARIES: dict[str, Callable[[Unit, ShardWork], None]] = {
    PairTable.kind: summarise_pairs,
    DropTable.kind: summarise_drops,
    ImageShards.kind: summarise_images,
}


def read_summaries(paths: Iterable[Path]) -> Summary:
    """The sum of what units gave."""
    found = Summary()
    for path in paths:
        found.merge(json.loads(path.read_text()))
    return found


def words_of(caption: str) -> str:
    """The class of a caption's length in words: 1, 2, 3–4, 5–8, 9–16, …"""
    return _class_of(len(caption.split()))


def _shape(sample: Sample) -> dict[str, str]:
    width, height = (sample.record.get(name) for name in ("width", "height"))
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        return {}  # no filter has looked at it
    # Halves of a power of two: 1:1, 1:1.4, 1:2, 1:2.8, …
    step = round(2 * math.log2(width / height))
    ratio = f"{2 ** (abs(step) / 2):.2g}"
    aspect = "1:1" if step == 0 else (f"{ratio}:1" if step > 0 else f"1:{ratio}")
    return {"side": _class_of(min(width, height)), "aspect": aspect}


def _class_of(number: int) -> str:
    if number <= 2:
        return str(number)
    power = (number - 1).bit_length()
    return f"{2 ** (power - 1) + 1}–{2**power}"


def _example(row: Row, unit: Unit) -> dict[str, str]:
    names = ("key", "caption", "image_url", "detail")
    return {**{name: str(row[name] or "")[:_MOST_TEXT] for name in names}, "unit": unit.name}


def _keep(found: Summary, unit: Unit, shard: ShardWork) -> None:
    path = shard.scratch / "summary.json"
    path.write_text(json.dumps(found.as_json(), sort_keys=True))
    shard.add("summary", path, f"summary-{unit.name}"[:200], found.total())
