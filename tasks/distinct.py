"""Rows that several units hold, kept where they come first.

Units that hold nothing new to drop stay as they are, so that next month's files leave last month's
units alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.tables import read_columns, read_table, write_table
from infra.work import Work
from schemas.artifact import Unit

_BATCH = 8192  # rows; part of the bytes


def keep_first(units: Sequence[Unit], schema: pa.Schema, work: Work) -> tuple[Unit, ...]:
    """The units without the rows whose key an earlier unit has; memory: 24 bytes a row.

    Units without rows are left out.
    """
    keys = [_keys(unit, schema, work) for unit in units]
    if not keys:
        return ()
    first = np.zeros(sum(map(len, keys)), dtype=bool)
    first[np.unique(np.concatenate(keys), return_index=True)[1]] = True
    starts = np.cumsum([0, *map(len, keys)])
    kept = (
        _select(unit, first[start:end], schema, work)
        for unit, start, end in zip(units, starts[:-1], starts[1:], strict=True)
    )
    return tuple(unit for unit in kept if unit.records)


def drop_repeats(path: Path) -> int:
    """Leave each key's first row in a file, and say how many went; memory: 24 bytes a row."""
    with pq.ParquetFile(path) as file:
        keys = _packed(file.read(columns=["key"])["key"])
        first = np.zeros(len(keys), dtype=bool)
        first[np.unique(keys, return_index=True)[1]] = True
        if first.all():
            return 0
        chosen, start = path.with_suffix(".chosen"), 0
        with pq.ParquetWriter(chosen, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(_BATCH):
                kept = first[start : start + batch.num_rows]
                writer.write_batch(batch.filter(pa.array(kept)))
                start += batch.num_rows
    chosen.replace(path)
    return int((~first).sum())


def _keys(unit: Unit, schema: pa.Schema, work: Work) -> np.ndarray:
    return _packed(read_columns(work.fetch(unit), schema, ["key"])["key"])


def _packed(column: pa.ChunkedArray) -> np.ndarray:
    packed = (bytes.fromhex("".join(chunk.to_pylist())) for chunk in column.chunks)
    return np.frombuffer(b"".join(packed), dtype="S16")


def _select(unit: Unit, keep: np.ndarray, schema: pa.Schema, work: Work) -> Unit:
    if keep.all():
        return unit
    work.count("repeated_pairs", int((~keep).sum()))
    rows = read_table(work.fetch(unit), schema)
    path = work.scratch / unit.name
    count = write_table(path, (row for row, k in zip(rows, keep, strict=True) if k), schema)
    return work.add(path, unit.name, count)
