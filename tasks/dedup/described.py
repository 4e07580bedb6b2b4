"""What pictures are compared by: a table for each shard, with their hashes and thumbnails."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.tables import read_columns, write_table
from infra.work import ShardWork
from schemas.artifact import Unit
from tasks.dedup.picture_hash import HASH_BYTES, THUMBNAIL_BYTES, hash_picture, thumbnail_of
from tasks.pictures import Undecodable, decode

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("hash", pa.binary(HASH_BYTES), nullable=False),
        pa.field("thumbnail", pa.binary(THUMBNAIL_BYTES), nullable=False),
    ]
)


class Described(NamedTuple):
    """Pictures of a shard in its order; 100 bytes each, since thumbnails are read apart.

    Attributes:
        keys: "S16" [N]; sha256: of the bytes, uint64 [N, 4].
        area: pixels, int64 [N]; hashes: uint8 [N, 32].
    """

    keys: np.ndarray
    sha256: np.ndarray
    area: np.ndarray
    hashes: np.ndarray


def describe_shard(unit: Unit, shard: ShardWork) -> None:
    """Hash the pictures of one shard; one table, `features`, also of a shard without any."""
    path = shard.scratch / f"features-{unit.name}.parquet"
    rows = (_describe(sample, unit.name) for sample in read_shard(shard.fetch(unit)))
    shard.add("features", path, path.name, write_table(path, rows, _SCHEMA))


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


def read_described(path: Path) -> Described:
    """All of a table but the thumbnails."""
    return _read(read_columns(path, _SCHEMA, _SCHEMA.names[:4]))


def nothing_described() -> Described:
    """Of no picture."""
    return _read(_SCHEMA.empty_table())


def read_thumbnails(path: Path) -> np.ndarray:
    """The thumbnails of a table, uint8 [N, 768]."""
    return _bytes(read_columns(path, _SCHEMA, ["thumbnail"])["thumbnail"], THUMBNAIL_BYTES)


def _read(table: pa.Table) -> Described:
    keys, sha256 = (bytes.fromhex("".join(table[c].to_pylist())) for c in ("key", "sha256"))
    return Described(
        np.frombuffer(keys, dtype="S16"),
        np.frombuffer(sha256, dtype=np.uint64).reshape(-1, 4),
        table["area"].to_numpy(),
        _bytes(table["hash"], HASH_BYTES),
    )


def _bytes(column: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8).reshape(-1, width)
