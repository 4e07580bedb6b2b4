"""Drop pairs that are unfit for training by their images (DALL-E, appendix C), with a reason.

Filters are asked in the declared order; the first that objects gives the reason. Images stay as
they were fetched; their records gain the width and height of the picture, the right way up. A dry
run drops nothing: every filter looks at every picture, and what it measured and would do is a
table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator, BeforeValidator, Field

from infra.shards import Sample, read_shard, write_shard
from infra.tables import TableWriter
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, Findings, ImageShards, Unit
from schemas.records import DROP_SCHEMA, FINDING_SCHEMA, drop_record
from schemas.stage import StageParams, stage
from tasks.filters import FilterSpec, Objection, as_specs, build_filter, check_specs, filter_modules
from tasks.findings import finding_rows
from tasks.funnel import tally
from tasks.pictures import Picture

STAGE = "filter_images"


class PictureFilter(Protocol):
    """A module of `tasks.filters` that looks at pictures."""

    def look(self, picture: Picture) -> Objection | None:
        """An objection, or None."""


def _decodable_first(specs: tuple[FilterSpec, ...]) -> tuple[FilterSpec, ...]:
    if "decodable" not in specs[0]:
        raise ValueError(
            f"the first filter is {next(iter(specs[0]))!r}, but must be 'decodable': the others"
            " look at decoded pictures"
        )
    return check_specs(specs, "picture")


class FilterImagesParams(StageParams):
    """Which filters, in which order; `decodable` first.

    Attributes:
        filters: `{name: parameters}` each; names are modules of `tasks.filters`.
        dry_run: keep every pair as it is, and write down what each filter measures and would do.
    """

    filters: Annotated[
        tuple[FilterSpec, ...], BeforeValidator(as_specs), AfterValidator(_decodable_first)
    ] = Field(min_length=1)
    dry_run: bool = False

    def modules(self) -> tuple[str, ...]:
        """The chosen filters are part of the code."""
        return filter_modules(self.filters)


class Filtered(NamedTuple):
    """The pairs that every filter accepts, the others, and what a dry run measured."""

    kept: ImageShards
    drops: DropTable
    findings: Findings


@stage(retries=2, memory_gb=1.0, versions=("pillow", "numpy", "pyarrow"))
def filter_images(images: ImageShards, params: FilterImagesParams, work: Work) -> Filtered:
    """Keep the pairs whose pictures every filter accepts."""
    function = try_shard if params.dry_run else filter_shard
    mapped = work.map(function, images.units, filters=params.filters)
    kept = images if params.dry_run else ImageShards(units=mapped.units("kept"))
    drops, findings = DropTable(units=mapped.units("drops")), mapped.units("findings")
    tally(STAGE, kept, drops, work)
    return Filtered(kept, drops, Findings(units=findings))


def filter_shard(unit: Unit, shard: ShardWork, filters: tuple[FilterSpec, ...]) -> None:
    """Filter one shard, a sample in memory at a time."""
    chosen = [build_filter(spec) for spec in filters]
    kept, drops = shard.scratch / unit.name, shard.scratch / f"drops-{unit.name}.parquet"
    with TableWriter(drops, DROP_SCHEMA) as reject:
        count = write_shard(kept, _accepted(read_shard(shard.fetch(unit)), chosen, reject))
    for output, path, rows in (("kept", kept, count), ("drops", drops, reject.rows)):
        if rows:
            shard.add(output, path, path.name, rows)


def _accepted(
    samples: Iterator[Sample], filters: list[PictureFilter], reject: TableWriter
) -> Iterator[Sample]:
    for sample in samples:
        picture = Picture(sample.image)
        record = {"sha256": hashlib.sha256(sample.image).hexdigest(), **sample.record}
        objection = judge(picture, filters)
        if objection is None:
            record |= {"width": picture.width, "height": picture.height}
            yield Sample(sample.key, sample.image, sample.extension, sample.caption, record)
        else:
            pair: dict[str, Any] = {**record, "key": sample.key, "caption": sample.caption}
            reject.write(drop_record(pair, STAGE, objection.reason, objection.detail))


def judge(picture: Picture, filters: list[PictureFilter]) -> Objection | None:
    """The objection of the first filter that has one."""
    objections = (one.look(picture) for one in filters)
    return next((objection for objection in objections if objection is not None), None)


def try_shard(unit: Unit, shard: ShardWork, filters: tuple[FilterSpec, ...]) -> None:
    """Write down what each filter would do with every picture of one shard.

    Nothing is asked of a picture that the first one, `decodable`, finds to be none.
    """
    chosen = {next(iter(spec)): build_filter(spec) for spec in filters}
    path = shard.scratch / f"findings-{unit.name}.parquet"
    with TableWriter(path, FINDING_SCHEMA) as table:
        for sample in read_shard(shard.fetch(unit)):
            picture, first = Picture(sample.image), None
            for name, one in chosen.items():
                verdict = one.look(picture)
                undecodable = name == "decodable" and verdict is not None
                measure = None if undecodable else getattr(one, "measure", None)
                values = measure(picture) if measure else {}
                for row in finding_rows(sample.key, name, values, verdict):
                    table.write(row)
                if verdict is not None:
                    first = first or verdict
                    shard.count(f"objections/{name}")
                if undecodable:
                    break
            if first is not None:
                shard.count(f"would_drop/{first.reason}")
    shard.add("findings", path, path.name, table.rows)
