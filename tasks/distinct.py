"""Rows that several units hold, kept where they come first.

Within a unit keys are distinct already. Units that hold nothing new to drop stay as they are, so
that next month's files leave last month's units alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from infra.tables import read_columns, read_table, write_table
from infra.work import Work
from schemas.artifact import Unit


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


def _keys(unit: Unit, schema: pa.Schema, work: Work) -> np.ndarray:
    column = read_columns(work.fetch(unit), schema, ["key"])["key"]
    text = "".join(column.to_pylist())
    return np.frombuffer(bytes.fromhex(text), dtype="S16")


def _select(unit: Unit, keep: np.ndarray, schema: pa.Schema, work: Work) -> Unit:
    if keep.all():
        return unit
    work.count("repeated_pairs", int((~keep).sum()))
    rows = read_table(work.fetch(unit), schema)
    path = work.scratch / unit.name
    count = write_table(path, (row for row, k in zip(rows, keep, strict=True) if k), schema)
    return work.add(path, unit.name, count)
