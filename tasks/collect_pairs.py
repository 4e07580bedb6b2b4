"""Collect image-text pairs from WARC and WAT files and lists of URLs: each image, its best caption.

Each source file is one unit, made once: adding next month's files to the declaration reads those
and no others. What is damaged is counted and named (`bad_records/FILE`, `truncated_files/FILE`) and
what is sound is kept. A pair that several files hold is kept where it comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from infra.tables import TableWriter
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, PairTable, Unit
from schemas.base import canonical, digest
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA
from schemas.stage import Listing, Source, StageParams, stage
from tasks.distinct import drop_repeats, keep_first
from tasks.funnel import tally
from tasks.sources.found import Found
from tasks.sources.pages import pairs_of_page
from tasks.sources.pair_sources import Entry
from tasks.sources.url_lists import pairs_of_list
from tasks.sources.urls import UnusableAddress
from tasks.sources.warc import Fault, Page, read_pages
from tasks.sources.wat import pairs_of_wat


class CollectParams(StageParams):
    """What to read.

    Attributes:
        files: in any mix: paths, globs or URLs of WARC and WAT files, path listings, lists of URLs
            (`tasks.sources.pair_sources`). A pair is kept where it comes first in this order.
    """

    files: tuple[Entry, ...] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _distinct(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        labels = [entry.label for entry in value]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is declared twice")
        return value

    def sources(self) -> tuple[str | Listing, ...]:
        """The files are read from outside the pipeline."""
        return tuple(entry.source() for entry in self.files)


class Collected(NamedTuple):
    """The pairs, and the images that make none."""

    pairs: PairTable
    drops: DropTable


@stage(retries=2, memory_gb=1.0, versions=("FastWARC", "Resiliparse", "idna", "orjson", "pyarrow"))
def collect_pairs(params: CollectParams, work: Work) -> Collected:
    """Read every record of every file; keep its pairs, and a drop for each image without one."""
    made = _collect(params, work)
    pairs = keep_first(_units(made, "pairs"), PAIR_SCHEMA, work)
    drops = keep_first(_units(made, "drops"), DROP_SCHEMA, work)
    collected = Collected(PairTable(units=pairs), DropTable(units=drops))
    tally("collect_pairs", collected.pairs, collected.drops, work)
    return collected


Made = dict[Source, dict[str, tuple[Unit, ...]]]


def _collect(params: CollectParams, work: Work) -> Made:
    """The outputs of each source, mapped together where they are read in the same way."""
    readers = {entry.label: entry.reader() for entry in params.files}
    ways: dict[str, list[Source]] = {}
    for source in work.sources:
        ways.setdefault(canonical(readers[source.declared]), []).append(source)
    made: Made = {}
    for sources in ways.values():
        mapped = work.map(collect_source, sources, reader=readers[sources[0].declared])
        made |= dict(zip(sources, mapped.outputs, strict=True))
    return {source: made[source] for source in work.sources}


def _units(made: Made, output: str) -> tuple[Unit, ...]:
    return tuple(unit for outputs in made.values() for unit in outputs[output])


def collect_source(source: Source, shard: ShardWork, reader: dict[str, Any]) -> None:
    """Make the unit of one file; `reader` says how it is read (`tasks.sources.pair_sources`)."""
    label = f"{source.name[:120]}-{digest([source.name, source.identity])[:12]}"
    pairs, drops = (shard.scratch / f"{kind}-{label}.parquet" for kind in ("pairs", "drops"))
    with TableWriter(pairs, PAIR_SCHEMA) as kept, TableWriter(drops, DROP_SCHEMA) as dropped:
        for found in _read(source, shard, reader):
            (dropped if found.dropped else kept).write(found.row)
    for output, path, rows in (("pairs", pairs, kept.rows), ("drops", drops, dropped.rows)):
        repeated = drop_repeats(path)
        shard.count("repeated_pairs", repeated)
        shard.add(output, path, path.name, rows - repeated)


def _read(source: Source, shard: ShardWork, reader: dict[str, Any]) -> Iterator[Found]:
    """What the file's records hold; each fault is counted."""
    for record in _records(shard.fetch(source), source, shard, reader):
        if isinstance(record, Fault):
            shard.count(str(record))
            shard.count(f"{record}/{source.name}")
        else:
            yield from _distinct(record, shard)


def _records(
    path: Path, source: Source, shard: ShardWork, reader: dict[str, Any]
) -> Iterator[Iterable[Found] | Fault]:
    if reader["kind"] == "warc":
        for page in read_pages(path):
            yield page if isinstance(page, Fault) else _pairs(page, source, shard)
    elif reader["kind"] == "wat":
        for found in pairs_of_wat(path, source.name):
            shard.count("pages", not isinstance(found, Fault))
            yield found
    else:
        how = {name: value for name, value in reader.items() if name != "kind"}
        for row in pairs_of_list(path, source.name, **how):
            shard.count("rows")
            yield row if isinstance(row, Fault) else [row]


def _pairs(page: Page, source: Source, shard: ShardWork) -> Iterable[Found] | Fault:
    try:
        found = pairs_of_page(page, source.name)
    except UnusableAddress:
        return Fault.BAD_RECORD
    shard.count("pages")
    if page.cut:
        shard.count("cut_pages")
    return found


def _distinct(record: Iterable[Found], shard: ShardWork) -> Iterator[Found]:
    """Most that is there twice is so on one page."""
    seen: set[str] = set()
    for found in record:
        if found.row["key"] in seen:
            shard.count("repeated_pairs")
        else:
            seen.add(found.row["key"])
            yield found
