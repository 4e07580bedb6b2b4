"""Image shards and pair tables without some of their pairs: what loses none stays as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from infra.shards import Sample, read_shard, write_shard
from infra.tables import TableWriter, read_table
from infra.work import Mapped, ShardWork, Work
from schemas.artifact import DropTable, ImageShards, PairTable, Unit
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA, DropReason, drop_record

Reasons = Mapping[str, Sequence[str]]  # by key: the reason, and a detail for a person


class Rewritten(NamedTuple):
    """The shards that are left, and what they lost."""

    kept: ImageShards
    drops: DropTable


def plan(unit: Unit, dropped: Reasons, work: Work) -> Unit | None:
    """A unit that says which pairs a shard loses and why, or None; its digest is its memo."""
    if not dropped:
        return None
    path = work.scratch / f"plan-{unit.name}.json"
    path.write_text(json.dumps({"unit": unit.model_dump(), "dropped": dropped}, sort_keys=True))
    return work.add(path, path.name, len(dropped))


def rewrite(
    units: Sequence[Unit], plans: Sequence[Unit | None], stage: str, work: Work
) -> Rewritten:
    """Carry out the plans of shards, one for each; shards without pairs are left out."""
    mapped = work.map(rewrite_shard, [one for one in plans if one], stage=stage)
    drops = DropTable(units=mapped.units("drops"))
    return Rewritten(ImageShards(units=_kept(units, plans, mapped)), drops)


def rewrite_pairs(
    units: Sequence[Unit], plans: Sequence[Unit | None], stage: str, work: Work
) -> tuple[PairTable, DropTable]:
    """The same for parts of a pair table."""
    mapped = work.map(rewrite_part, [one for one in plans if one], stage=stage)
    kept = PairTable(units=_kept(units, plans, mapped))
    return kept, DropTable(units=mapped.units("drops"))


def _kept(units: Sequence[Unit], plans: Sequence[Unit | None], mapped: Mapped) -> tuple[Unit, ...]:
    outputs = iter(mapped.outputs)
    return tuple(
        new for unit, one in zip(units, plans, strict=True)
        for new in (next(outputs).get("kept", ()) if one else (unit,))
    )  # fmt: skip


def rewrite_part(plan: Unit, shard: ShardWork, stage: str) -> None:
    """Write a part of a pair table without the pairs that its plan drops."""
    read = json.loads(shard.fetch(plan).read_text())
    unit, dropped = Unit(**read["unit"]), read["dropped"]
    kept, drops = shard.scratch / unit.name, shard.scratch / f"drops-{unit.name}"
    with TableWriter(kept, PAIR_SCHEMA) as accept, TableWriter(drops, DROP_SCHEMA) as reject:
        for pair in read_table(shard.fetch(unit), PAIR_SCHEMA):
            if pair["key"] in dropped:
                reason, detail = dropped[pair["key"]]
                reject.write(drop_record(pair, stage, DropReason(reason), detail))
            else:
                accept.write(pair)
    if accept.rows:
        shard.add("kept", kept, kept.name, accept.rows)
    shard.add("drops", drops, drops.name, reject.rows)


def rewrite_shard(plan: Unit, shard: ShardWork, stage: str) -> None:
    """Write a shard without the pairs that its plan drops."""
    read = json.loads(shard.fetch(plan).read_text())
    unit, dropped = Unit(**read["unit"]), read["dropped"]
    kept, drops = shard.scratch / unit.name, shard.scratch / f"drops-{unit.name}.parquet"
    with TableWriter(drops, DROP_SCHEMA) as reject:
        count = write_shard(kept, _survivors(shard.fetch(unit), dropped, stage, reject))
    if count:
        shard.add("kept", kept, kept.name, count)
    shard.add("drops", drops, drops.name, reject.rows)


def _survivors(path: Path, dropped: Reasons, stage: str, reject: TableWriter) -> Iterator[Sample]:
    for sample in read_shard(path):
        if sample.key not in dropped:
            yield sample
            continue
        reason, detail = dropped[sample.key]
        pair = {**sample.record, "key": sample.key, "caption": sample.caption}
        sha256 = hashlib.sha256(sample.image).hexdigest()
        reject.write(drop_record(pair, stage, DropReason(reason), detail, sha256))
