"""Drop pairs whose picture is there already: the same bytes, or the same to the eye.

Every shard is described by itself (hash, thumbnail, area), clusters are found over all of them, and
only shards that lose a pair are written anew. See `tasks.picture_hash` and `tasks.clusters`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.errors import PermanentError
from infra.shards import Sample, read_shard, write_shard
from infra.tables import TableWriter, read_columns, write_table
from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, DropTable, ImageShards, Unit
from schemas.records import CLUSTER_SCHEMA, DROP_SCHEMA, DropReason, drop_record
from schemas.stage import StageParams, stage
from tasks.clusters import Bounds, Features, find_clusters
from tasks.funnel import tally
from tasks.picture_hash import HASH_BYTES, THUMBNAIL_BYTES, hash_picture, thumbnail_of
from tasks.pictures import Undecodable, decode

STAGE = "dedup_images"

_FEATURES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("hash", pa.binary(HASH_BYTES), nullable=False),
        pa.field("thumbnail", pa.binary(THUMBNAIL_BYTES), nullable=False),
    ]
)


class DedupParams(StageParams):
    """When two pictures count as the same to the eye.

    Measured on the demo's web (seed 1): with the defaults 1 of 386 copies stays and 1 of 6,436
    different drawings goes. No mean difference separates them wholly: copies are up to 2.7 levels
    apart, two drawings of one small shape 2.3 and more.

    Attributes:
        distance: bits of 256 in which their hashes may differ.
        mean_difference: levels of 255 by which their thumbnails may differ on average.
        most_difference: and anywhere; this tells an emoji from its variant in another skin tone.
    """

    distance: int = Field(default=16, ge=0, le=64)
    mean_difference: float = Field(default=2.5, ge=0)
    most_difference: float = Field(default=36.0, ge=0)


class Deduplicated(NamedTuple):
    """One pair for each picture, the others, and what belonged together."""

    kept: ImageShards
    drops: DropTable
    clusters: ClusterTable


@stage(retries=2, memory_gb=2.0, versions=("pillow", "numpy", "pyarrow"))
def dedup_images(images: ImageShards, params: DedupParams, work: Work) -> Deduplicated:
    """Keep one pair for each picture."""
    described = work.map(describe_shard, images.units).units("features")
    bounds = Bounds(params.distance, params.mean_difference, params.most_difference)
    rows = find_clusters(_features(described, work), bounds)
    plans = _plans(images.units, described, rows, work)
    rewritten = work.map(rewrite_shard, [plan for plan in plans if plan])
    kept = iter(rewritten.outputs)
    units = [
        new for unit, plan in zip(images.units, plans, strict=True)
        for new in (next(kept).get("kept", ()) if plan else (unit,))
    ]  # fmt: skip
    found = Deduplicated(
        ImageShards(units=tuple(units)),
        DropTable(units=rewritten.units("drops")),
        ClusterTable(units=(_table(rows, work),)),
    )
    work.count("clusters", sum(row["survivor"] for row in rows))
    tally(STAGE, found.kept, found.drops, work)
    return found


def describe_shard(unit: Unit, shard: ShardWork) -> None:
    """Hash the pictures of one shard."""
    path = shard.scratch / f"features-{unit.name}.parquet"
    rows = (_describe(sample, unit.name) for sample in read_shard(shard.fetch(unit)))
    shard.add("features", path, path.name, write_table(path, rows, _FEATURES))


def _describe(sample: Sample, shard: str) -> dict[str, Any]:
    try:
        image = decode(sample.image)
    except Undecodable as error:
        raise PermanentError(
            f"{shard}: the image of {sample.key} cannot be decoded ({error.detail}); let"
            " filter_images with the filter `decodable` come first"
        ) from error
    return {
        "key": sample.key,
        "sha256": hashlib.sha256(sample.image).hexdigest(),
        "area": image.width * image.height,
        "hash": hash_picture(image),
        "thumbnail": thumbnail_of(image),
    }


def _features(units: tuple[Unit, ...], work: Work) -> Features:
    """The features of all shards in key order; thumbnails stay on disk."""
    tables = [read_columns(work.fetch(unit), _FEATURES, _FEATURES.names[:4]) for unit in units]
    table = pa.concat_tables([_FEATURES.empty_table().select(_FEATURES.names[:4]), *tables])
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    hashes = b"".join(table["hash"].to_pylist())
    return Features(
        keys=table["key"].to_numpy()[order],
        sha256=table["sha256"].to_numpy()[order],
        area=table["area"].to_numpy()[order],
        hashes=np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES)[order],
        thumbnails=_thumbnails(units, order, work),
    )


def _thumbnails(units: tuple[Unit, ...], order: np.ndarray, work: Work) -> np.ndarray:
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    shape = (max(len(order), 1), THUMBNAIL_BYTES)  # a file of no bytes cannot be mapped
    found = np.memmap(work.scratch / "thumbnails", dtype=np.uint8, mode="w+", shape=shape)
    start = 0
    for unit in units:
        column = read_columns(work.fetch(unit), _FEATURES, ["thumbnail"])["thumbnail"]
        rows = np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8)
        rows = rows.reshape(-1, THUMBNAIL_BYTES)
        found[place[start : start + len(rows)]] = rows
        start += len(rows)
    return found[: len(order)]


def _plans(
    units: tuple[Unit, ...], described: tuple[Unit, ...], rows: list[dict[str, Any]], work: Work
) -> list[Unit | None]:
    """For each shard that loses pairs a unit that says which and why; its digest is its memo."""
    dropped = {row["key"]: [row["rule"], _detail(row)] for row in rows if not row["survivor"]}
    plans: list[Unit | None] = []
    for unit, features in zip(units, described, strict=True):
        keys = read_columns(work.fetch(features), _FEATURES, ["key"])["key"].to_pylist()
        chosen = {key: dropped[key] for key in keys if key in dropped}
        plans.append(_plan(unit, chosen, work) if chosen else None)
    return plans


def _plan(unit: Unit, dropped: dict[str, list[str]], work: Work) -> Unit:
    path = work.scratch / f"plan-{unit.name}.json"
    path.write_text(json.dumps({"unit": unit.model_dump(), "dropped": dropped}, sort_keys=True))
    return work.add(path, path.name, len(dropped))


def _detail(row: dict[str, Any]) -> str:
    if row["rule"] == DropReason.EXACT_DUPLICATE:
        return f"same bytes as {row['cluster']}"
    bits, levels = row["distance"], row["difference"]
    return f"like {row['cluster']}: {bits} bits, {levels:.1f} levels apart"


def rewrite_shard(plan: Unit, shard: ShardWork) -> None:
    """Write a shard without the pairs that its plan drops."""
    read = json.loads(shard.fetch(plan).read_text())
    unit, dropped = Unit(**read["unit"]), read["dropped"]
    kept, drops = shard.scratch / unit.name, shard.scratch / f"drops-{unit.name}.parquet"
    with TableWriter(drops, DROP_SCHEMA) as reject:
        count = write_shard(kept, _survivors(shard.fetch(unit), dropped, reject))
    if count:
        shard.add("kept", kept, kept.name, count)
    shard.add("drops", drops, drops.name, reject.rows)


def _survivors(path: Path, dropped: dict[str, list[str]], reject: TableWriter) -> Iterator[Sample]:
    for sample in read_shard(path):
        if sample.key not in dropped:
            yield sample
            continue
        reason, detail = dropped[sample.key]
        pair = {**sample.record, "key": sample.key, "caption": sample.caption}
        sha256 = hashlib.sha256(sample.image).hexdigest()
        reject.write(drop_record(pair, STAGE, DropReason(reason), detail, sha256))


def _table(rows: list[dict[str, Any]], work: Work) -> Unit:
    path = work.scratch / "clusters.parquet"
    return work.add(path, path.name, write_table(path, rows, CLUSTER_SCHEMA))
