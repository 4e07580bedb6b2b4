"""Lists of image URLs with captions: parquet, CSV and JSON lines, as collections are published.

A file is read as a stream, some thousand rows in memory at a time. A row that cannot be read is
counted and the next one is read; a file without a declared column is refused.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import PermanentError
from tasks.sources.found import MAX_CAPTION, Found, Place
from tasks.sources.urls import UnusableAddress, absolute_url, host_of
from tasks.sources.warc import Fault
from tasks.text import one_line

_BATCH = 4096  # rows
_MOST_LINE = 1 << 20  # characters of a line, and of a field
_MOST_LICENSE = 512  # characters

Row = Mapping[str, Any]


def pairs_of_list(
    path: Path, source: str, format: str, columns: Mapping[str, str | None],
    separator: str = ",", header: tuple[str, ...] = (),
) -> Iterator[Found | Fault]:  # fmt: skip
    """Yield the pair or drop of each row, and each fault.

    Args:
        source: name of the file, for the records of pairs.
        columns: name in the file of `url` and `caption`, and where given of `page` and `license`.
        separator, header: of a CSV file; without a header its first line is one.

    Raises:
        PermanentError: if a column is not there.
    """
    wanted = {role: name for role, name in columns.items() if name is not None}
    if format == "parquet":
        rows = _parquet(path, source, wanted)
    elif format == "csv":
        rows = _csv(path, source, wanted, separator, header)
    else:
        rows = _json_lines(path, wanted)
    for number, row in enumerate(rows):
        yield row if isinstance(row, Fault) else _pair(row, source, number)


def _pair(row: Row, source: str, number: int) -> Found:
    url, said, page = (_text(row.get(role)) for role in ("url", "license", "page"))
    page_url = _absolute(page)
    place = Place(
        page_url, host_of(page_url or _absolute(url)), "", source, number,
        license=one_line(said, _MOST_LICENSE) or None,
    )  # fmt: skip
    caption = one_line(_text(row.get("caption")), MAX_CAPTION)
    return place.judge((url,) if url else (), caption, "list")


def _absolute(address: str) -> str:
    """The URL of an address, empty if it has none that could be asked for."""
    try:
        return absolute_url(address) if address else ""
    except UnusableAddress:
        return ""


def _parquet(path: Path, source: str, wanted: Mapping[str, str]) -> Iterator[Row | Fault]:
    try:
        # Buffered: otherwise the chunks of a whole row group, often of a million rows, are read.
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError):
        yield Fault.BAD_RECORD
        return
    with file:
        _require(wanted, file.schema_arrow.names, source)
        names = list(dict.fromkeys(wanted.values()))
        try:
            for batch in file.iter_batches(_BATCH, columns=names, use_threads=False):
                found = {name: batch.column(name).to_pylist() for name in names}
                for at in range(batch.num_rows):
                    yield {role: found[name][at] for role, name in wanted.items()}
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            yield Fault.TRUNCATED


def _csv(
    path: Path, source: str, wanted: Mapping[str, str], separator: str, header: tuple[str, ...]
) -> Iterator[Row | Fault]:
    csv.field_size_limit(_MOST_LINE)
    with _open(path) as stream:
        rows = _csv_rows(csv.reader(_lines(stream), delimiter=separator))
        names = header
        if not names:
            first = next(rows, ())
            names = () if isinstance(first, Fault) else tuple(first)
            _require(wanted, names, source)
        places = {role: names.index(name) for role, name in wanted.items()}
        for row in rows:
            if isinstance(row, Fault):
                yield row
            elif len(row) == len(names):
                yield {role: row[place] for role, place in places.items()}
            elif row:
                yield Fault.BAD_RECORD


def _csv_rows(reader: Any) -> Iterator[list[str] | Fault]:
    """Rows until the end; one that the reader refuses, or a broken packing, is a fault."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield Fault.BAD_RECORD
        except (OSError, EOFError, zlib.error):
            yield Fault.TRUNCATED
            return


def _json_lines(path: Path, wanted: Mapping[str, str]) -> Iterator[Row | Fault]:
    with _open(path) as stream:
        lines = _lines(stream)
        while True:
            try:
                line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError, zlib.error):
                yield Fault.TRUNCATED
                return
            if line.strip():
                yield _json_row(line, wanted)


def _json_row(line: str, wanted: Mapping[str, str]) -> Row | Fault:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Fault.BAD_RECORD
    if not isinstance(row, dict) or wanted["url"] not in row:
        return Fault.BAD_RECORD
    return {role: row.get(name) for role, name in wanted.items()}


def _open(path: Path) -> TextIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
    return gzip.open(path, "rt", **options) if packed else path.open(**options)


def _lines(stream: TextIO) -> Iterator[str]:
    """Lines of a bounded length: what a file that is none of text has instead is cut."""
    return itertools.takewhile(bool, (stream.readline(_MOST_LINE) for _ in itertools.count()))


def _require(wanted: Mapping[str, str], there: Any, source: str) -> None:
    missing = [f"{role}: {name}" for role, name in wanted.items() if name not in there]
    if missing:
        shown = ", ".join(map(str, there))[:500]
        raise PermanentError(f"{source}: there is no column for {missing}; there are {shown}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
