"""Tables of records: parquet files of a versioned schema, the same bytes from the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.records import require_schema

_BATCH = 8192  # rows; bounds memory and is part of the bytes


class TableWriter:
    """Writes rows to one parquet file, a batch at a time; use it in a `with` statement."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._waiting: list[Mapping[str, Any]] = []
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._flush()
        self._file.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; columns that it lacks are null."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=self.schema))
            self._waiting = []


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write rows of a schema (`schemas.records`) and say how many there were."""
    with TableWriter(path, schema) as writer:
        for row in rows:
            writer.write(row)
    return writer.rows


def read_table(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file, a batch in memory at a time.

    Raises:
        ValueError: if the file is of another schema or version.
    """
    with pq.ParquetFile(path) as file:
        require_schema(file.schema_arrow, schema, path.name)
        for batch in file.iter_batches(_BATCH):
            yield from batch.to_pylist()


def read_columns(path: Path, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Some columns of a parquet file as one table.

    Raises:
        ValueError: if the file is of another schema or version.
    """
    with pq.ParquetFile(path) as file:
        require_schema(file.schema_arrow, schema, path.name)
        return file.read(columns=list(columns))
