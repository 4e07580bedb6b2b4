"""Rows that several units hold, kept where they come first.

Units that hold nothing new to drop stay as they are, so that next month's files leave last month's
units alone.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.disk import mapped_array
from infra.tables import read_columns, read_table, write_table
from infra.work import Work
from schemas.artifact import Unit
from tasks.dedup.hash_groups import whole_groups, write_groups

_BATCH = 8192  # rows; part of the bytes


def keep_first(units: Sequence[Unit], schema: pa.Schema, work: Work) -> tuple[Unit, ...]:
    """The units without the rows whose key an earlier unit has; those without rows are left out."""
    first = first_of_keys((_keys(unit, schema, work) for unit in units), work.scratch / "keys")
    kept = (_select(unit, keep, schema, work) for unit, keep in zip(units, first, strict=True))
    return tuple(unit for unit in kept if unit.records)


def first_of_keys(
    keys: Iterable[np.ndarray], folder: Path, at_once: int = 1 << 20
) -> list[np.ndarray]:
    """For each array of keys (`S16`, hashes) which of its rows are the first of all with their key.

    Bool [rows] each, on disk, as all is that grows with the number of rows: of the keys, `at_once`
    rows or so are in memory at a time, and one array whole.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, starts, waiting = list[Path](), [0], list[np.ndarray]()
    for some in keys:
        waiting.append(_placed(some, starts[-1]))
        starts.append(starts[-1] + len(some))
        if sum(map(len, waiting)) >= at_once:
            files.append(_spill(waiting, folder / f"{len(files):06d}.npy"))
            waiting = []
    if any(map(len, waiting)):  # a file of no rows cannot be mapped
        files.append(_spill(waiting, folder / f"{len(files):06d}.npy"))
    first = mapped_array(folder / "first", np.bool_, (max(starts[-1], 1),))
    for rows in whole_groups(files, at_once):
        # Stable, and rows of a group come in the order of their places.
        ordered = rows[np.lexsort((rows["rest"], rows["group"]))]
        fresh = ordered[1:][["group", "rest"]] != ordered[:-1][["group", "rest"]]
        first[ordered["place"][np.append(True, fresh)]] = True
    return [first[start:end] for start, end in itertools.pairwise(starts)]


def _spill(parts: Sequence[np.ndarray], path: Path) -> Path:
    write_groups(path, np.concatenate(parts))
    return path


_PLACED = np.dtype([("group", "<u8"), ("rest", "<u8"), ("place", "<i8")])


def _placed(keys: np.ndarray, start: int) -> np.ndarray:
    """Keys by their halves, and where they are in all of them."""
    rows = np.empty(len(keys), dtype=_PLACED)
    rows["group"], rows["rest"] = keys.view(">u8").reshape(-1, 2).T
    rows["place"] = np.arange(start, start + len(keys))
    return rows


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
