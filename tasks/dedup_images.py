"""Drop pairs whose picture is there already: the same bytes, or the same to the eye.

Every shard is described by itself (hash, thumbnail, area), clusters are found over all of them, and
only shards that lose a pair are written anew. See `tasks.dedup.picture_hash` and
`tasks.dedup.clusters`. The descriptions are an output: given to a later collection as `earlier`,
they keep what is there already from coming back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.tables import read_columns, write_table
from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, DropTable, ImageShards, PictureFeatures, Unit
from schemas.records import CLUSTER_SCHEMA
from schemas.stage import StageParams, stage
from tasks.dedup.clusters import Bounds, Clusters, Features, find_clusters, hex_of
from tasks.dedup.picture_hash import HASH_BYTES, THUMBNAIL_BYTES, hash_picture, thumbnail_of
from tasks.dedup.rewriting import plan, rewrite
from tasks.funnel import tally
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
    """One pair for each picture, the others, what belonged together, and all descriptions."""

    kept: ImageShards
    drops: DropTable
    clusters: ClusterTable
    features: PictureFeatures


@stage(retries=2, cores=2, memory_gb=2.0, versions=("pillow", "numpy", "pyarrow", "scipy"))
def dedup_images(
    images: ImageShards, params: DedupParams, work: Work, earlier: PictureFeatures | None = None
) -> Deduplicated:
    """Keep one pair for each picture, and none for a picture of an earlier collection."""
    described = work.map(describe_shard, images.units).units("features")
    before = earlier.units if earlier else ()
    bounds = Bounds(params.distance, params.mean_difference, params.most_difference)
    features, places = _features(described, before, work)
    clusters = find_clusters(features, bounds)
    plans = _plans(images.units, places, clusters, work)
    kept, drops = rewrite(images.units, plans, STAGE, work)
    path = work.scratch / "clusters.parquet"
    table = work.add(path, path.name, write_table(path, clusters.rows(), CLUSTER_SCHEMA))
    found = Deduplicated(
        kept, drops, ClusterTable(units=(table,)), PictureFeatures(units=(*before, *described))
    )
    work.count("clusters", clusters.count)
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


def _features(
    units: Sequence[Unit], earlier: Sequence[Unit], work: Work
) -> tuple[Features, list[np.ndarray]]:
    """The features of all shards in key order, and where in it each shard's pictures are.

    Thumbnails stay on disk; the rest takes 100 bytes a picture.
    """
    every = [*units, *earlier]
    columns = [_columns(unit, work) for unit in every] or [_read(_FEATURES.empty_table())]
    keys, sha256, area, hashes = (np.concatenate(column) for column in zip(*columns, strict=True))
    is_earlier = np.repeat(
        [False] * len(units) + [True] * len(earlier), [len(c[0]) for c in columns]
    )
    halves = keys.view(">u8").reshape(-1, 2)
    order = np.lexsort((is_earlier, halves[:, 1], halves[:, 0]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    sizes = [len(column[0]) for column in columns]
    places = np.split(place, np.cumsum(sizes)[:-1])
    features = Features(
        keys[order], sha256[order], area[order], hashes[order],
        _thumbnails(every, places, work), is_earlier[order],
    )  # fmt: skip
    return features, places[: len(units)]


def _columns(unit: Unit, work: Work) -> tuple[np.ndarray, ...]:
    return _read(read_columns(work.fetch(unit), _FEATURES, _FEATURES.names[:4]))


def _read(table: pa.Table) -> tuple[np.ndarray, ...]:
    keys, sha256 = (bytes.fromhex("".join(table[c].to_pylist())) for c in ("key", "sha256"))
    return (
        np.frombuffer(keys, dtype="S16"),
        np.frombuffer(sha256, dtype=np.uint64).reshape(-1, 4),
        table["area"].to_numpy(),
        _bytes(table["hash"], HASH_BYTES),
    )


def _bytes(column: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8).reshape(-1, width)


def _thumbnails(units: Sequence[Unit], places: Sequence[np.ndarray], work: Work) -> np.ndarray:
    total = sum(map(len, places))
    shape = (max(total, 1), THUMBNAIL_BYTES)  # a file of no bytes cannot be mapped
    found = np.memmap(work.scratch / "thumbnails", dtype=np.uint8, mode="w+", shape=shape)
    for unit, place in zip(units, places, strict=True):
        table = read_columns(work.fetch(unit), _FEATURES, ["thumbnail"])
        found[place] = _bytes(table["thumbnail"], THUMBNAIL_BYTES)
    return found[:total]


def _plans(
    units: Sequence[Unit], places: Sequence[np.ndarray], clusters: Clusters, work: Work
) -> list[Unit | None]:
    """For each shard that loses pairs a unit that says which and why."""
    dropped, numbers = clusters.dropped()
    plans = []
    for unit, place in zip(units, places, strict=True):
        chosen = place[np.isin(place, dropped)]
        found = numbers[np.searchsorted(dropped, chosen)]
        keys = (hex_of(clusters.features.keys, one) for one in chosen)
        reasons = (list(clusters.why(number)) for number in found)
        plans.append(plan(unit, dict(zip(keys, reasons, strict=True)), work))
    return plans
