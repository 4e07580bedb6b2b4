"""Collect image-text pairs from WARC files: each image of a page with its best caption.

Each source file is one unit, made once: adding next month's files to the declaration reads those
and no others. What is damaged is counted and named (`bad_records/FILE`, `truncated_files/FILE`) and
what is sound is kept. A pair that several files hold is kept where it comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import Field

from infra.tables import TableWriter
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, PairTable
from schemas.base import digest
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA
from schemas.stage import Source, StageParams, stage
from tasks.distinct import keep_first
from tasks.funnel import tally
from tasks.pages import Found, pairs_of_page
from tasks.urls import UnusableAddress
from tasks.warc import Fault, Page, read_pages


class CollectParams(StageParams):
    """Which files to read.

    Attributes:
        warc: paths, globs or URLs of WARC files, gzip by record or plain.
    """

    warc: tuple[str, ...] = Field(min_length=1)

    def sources(self) -> tuple[str, ...]:
        """The files are read from outside the pipeline."""
        return self.warc


class Collected(NamedTuple):
    """The pairs, and the images that make none."""

    pairs: PairTable
    drops: DropTable


@stage(retries=2, memory_gb=1.0, versions=("FastWARC", "Resiliparse", "idna", "pyarrow"))
def collect_pairs(params: CollectParams, work: Work) -> Collected:
    """Read every page of every file; keep its pairs, and a drop for each image without one."""
    mapped = work.map(collect_source, work.sources)
    pairs = keep_first(mapped.units("pairs"), PAIR_SCHEMA, work)
    drops = keep_first(mapped.units("drops"), DROP_SCHEMA, work)
    collected = Collected(PairTable(units=pairs), DropTable(units=drops))
    tally("collect_pairs", collected.pairs, collected.drops, work)
    return collected


def collect_source(source: Source, shard: ShardWork) -> None:
    """Make the unit of one file."""
    label = f"{source.name[:120]}-{digest([source.name, source.identity])[:12]}"
    pairs, drops = (shard.scratch / f"{kind}-{label}.parquet" for kind in ("pairs", "drops"))
    with TableWriter(pairs, PAIR_SCHEMA) as kept, TableWriter(drops, DROP_SCHEMA) as dropped:
        for found in _read(source, shard):
            (dropped if found.dropped else kept).write(found.row)
    shard.add("pairs", pairs, pairs.name, kept.rows)
    shard.add("drops", drops, drops.name, dropped.rows)


def _read(source: Source, shard: ShardWork) -> Iterator[Found]:
    """What the file's pages hold, each once."""
    seen: set[str] = set()
    for page in read_pages(shard.fetch(source)):
        found = page if isinstance(page, Fault) else _pairs(page, source)
        if isinstance(found, Fault):
            shard.count(str(found))
            shard.count(f"{found}/{source.name}")
            continue
        shard.count("pages")
        for one in found:
            if one.row["key"] in seen:
                shard.count("repeated_pairs")
            else:
                seen.add(one.row["key"])
                yield one


def _pairs(page: Page, source: Source) -> list[Found] | Fault:
    try:
        return list(pairs_of_page(page, source.name))
    except UnusableAddress:
        return Fault.BAD_RECORD
