"""Pages of a WARC file, whatever state the file is in.

The file is cut into records here, and each is parsed by FastWARC. FastWARC's own iterator ends at
the first damaged member and takes a truncated last record for a whole one; cutting first, each gzip
member is checked against its own checksum before anything in it is used, reading goes on at the
next record after damage, and the offset of every record is exact. The price is a third of the
iterator's speed (100 against 150 MB of HTML a second), little beside parsing the HTML.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fastwarc.warc import WarcRecord

from tasks.sources.optout import HEADERS

MAX_RECORD = 64 << 20  # bytes of one record, unpacked; larger ones are counted as bad
# Bytes of one page's HTML; what is beyond is not read, and the page is counted. The parser takes
# the square of some things (attributes of one element, forms left open): the worst page found of
# this size takes 30 s, and of twice the size two minutes. Few honest pages have so much HTML.
MAX_PAGE = 1 << 20

_GZIP = b"\x1f\x8b\x08"
_CHUNK = 1 << 12  # bytes read of a member at first, then twice as many each time
_MAX_HEADER = 1 << 16
_RELEASE = 32 << 20  # bytes
_RECORD = re.compile(rb"WARC/1\.\d\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_RESPONSE = re.compile(rb"\r\nwarc-type:[ \t]*response[ \t]*\r\n", re.IGNORECASE)
METADATA = re.compile(rb"\r\nwarc-type:[ \t]*metadata[ \t]*\r\n", re.IGNORECASE)
_HTML = ("text/html", "application/xhtml+xml")


class Fault(StrEnum):
    """What may be wrong with a stretch of a WARC file."""

    BAD_RECORD = "bad_records"
    TRUNCATED = "truncated_files"


@dataclass(frozen=True)
class Page:
    """One HTML answer of a WARC file.

    Attributes:
        url: as it was asked for, not yet checked.
        html: bytes as they were served, with transfer and content encodings undone.
        charset: what the Content-Type header names, or None.
        signals: values of the headers that may forbid use for AI, by lower-case name.
        offset: of the record (its gzip member) in the file, in bytes.
        cut: there was more HTML than is read.
    """

    url: str
    html: bytes
    charset: str | None
    signals: dict[str, str]
    offset: int
    cut: bool = False


def read_pages(path: Path, max_record: int = MAX_RECORD) -> Iterator[Page | Fault]:
    """Yield the HTML pages with status 200 in a file, and each fault where it was met.

    Other records (requests, images, redirects, error pages) are passed over. Memory is bounded by
    `max_record`, also for a member that unpacks to more.
    """
    for found in records_of(path, max_record=max_record):
        page = found if isinstance(found, Fault) else _page(*found)
        if page is not None:
            yield page


def records_of(
    path: Path, kind: re.Pattern[bytes] = _RESPONSE, max_record: int = MAX_RECORD
) -> Iterator[tuple[int, bytes] | Fault]:
    """The same for the records of a kind in a file, which is mapped and not read into memory."""
    if path.stat().st_size == 0:
        yield Fault.TRUNCATED
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        released = 0
        for found in read_records(data, max_record, kind):
            # What was read would stay mapped, and count as this process's memory.
            if not isinstance(found, Fault) and found[0] - released > _RELEASE:
                done = (found[0] - released) // mmap.PAGESIZE * mmap.PAGESIZE
                data.madvise(mmap.MADV_DONTNEED, released, done)
                released += done
            yield found


def read_records(
    data: mmap.mmap | bytes, max_record: int = MAX_RECORD, kind: re.Pattern[bytes] = _RESPONSE
) -> Iterator[tuple[int, bytes] | Fault]:
    """Yield (offset, bytes) of each record of a kind, and each fault where it was met.

    Args:
        kind: is searched for in a record's header.
    """
    # Garbage may come first, so the whole file is asked before it is taken for a packed one.
    if data[:3] != _GZIP and _RECORD.search(data):
        yield from _plain(data, max_record, kind)
    else:
        yield from _packed(data, max_record, kind)


def _packed(
    data: mmap.mmap | bytes, max_record: int, kind: re.Pattern[bytes]
) -> Iterator[tuple[int, bytes] | Fault]:
    position = 0
    while position < len(data):
        content, end = _member(data, position, max_record)
        if content is not None and end is not None:
            for found in _plain(content, max_record, kind):
                yield found if isinstance(found, Fault) else (position, found[1])
            position = end
            continue
        following = _next_member(data, position + 1)
        cut = content is not None and following is None
        yield Fault.TRUNCATED if cut else Fault.BAD_RECORD
        position = len(data) if following is None else following


def _member(data: mmap.mmap | bytes, position: int, limit: int) -> tuple[bytes | None, int | None]:
    """Content of a gzip member and where it ends; no end: cut off; no content: damaged."""
    unpacker, parts, size, step = zlib.decompressobj(31), list[bytes](), 0, _CHUNK
    try:
        while not unpacker.eof:
            chunk = data[position : position + step]
            if not chunk:
                return b"".join(parts), None
            position, step = position + len(chunk), 2 * step
            while chunk and not unpacker.eof and size <= limit:
                parts.append(unpacker.decompress(chunk, limit + 1 - size))
                size += len(parts[-1])
                chunk = unpacker.unconsumed_tail
            if size > limit:
                return None, None
    except zlib.error:
        return None, None
    return b"".join(parts), position - len(unpacker.unused_data)


def _next_member(data: mmap.mmap | bytes, position: int) -> int | None:
    while (position := data.find(_GZIP, position)) >= 0:
        # The magic bytes occur by chance, too (once in 16 MB); a member must unpack to a record.
        try:
            start = zlib.decompressobj(31).decompress(data[position : position + 512], 5)
        except zlib.error:
            start = b""
        if start == b"WARC/":
            return position
        position += 1
    return None


def _plain(
    data: mmap.mmap | bytes, max_record: int, kind: re.Pattern[bytes]
) -> Iterator[tuple[int, bytes] | Fault]:
    position = 0
    while position < len(data):
        end = _end(data, position)
        if end is not None and data[end : end + 4] in (b"\r\n\r\n", b""):
            header = data[position : data.find(b"\r\n\r\n", position) + 4]
            if end - position > max_record:
                yield Fault.BAD_RECORD
            elif kind.search(header):
                yield position, data[position:end]
            position = end + 4
            continue
        following = _next_record(data, position + 1)
        cut = following is None and data[position : position + 5] == b"WARC/"
        yield Fault.TRUNCATED if cut else Fault.BAD_RECORD
        position = len(data) if following is None else following


def _end(data: mmap.mmap | bytes, position: int) -> int | None:
    """Where the record's content ends; None if it has no sound header or ends beyond the data."""
    if not _RECORD.match(data, position):
        return None
    body = data.find(b"\r\n\r\n", position, position + _MAX_HEADER)
    length = _LENGTH.search(data, position, body + 2) if body >= 0 else None
    if length is None or body + 4 + int(length[1]) > len(data):
        return None
    return body + 4 + int(length[1])


def _next_record(data: mmap.mmap | bytes, position: int) -> int | None:
    found = _RECORD.search(data, position)
    return found.start() if found else None


def _page(offset: int, content: bytes) -> Page | Fault | None:
    """The page in a response record; None when it holds no HTML page with status 200."""
    record = _parse(content)
    if record is None:
        return Fault.BAD_RECORD
    headers = record.http_headers
    if headers is None or headers.status_code != 200:
        return None
    html = record.reader.read(MAX_PAGE + 1)
    kind = (record.http_content_type or "").lower()
    if kind not in _HTML and (kind or not _looks_like_html(html)):
        return None
    signals = {
        name: ", ".join(value for key, value in headers if key.lower() == name) for name in HEADERS
    }
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    charset = (record.http_charset or "").strip("\"' ") or None
    return Page(url, html[:MAX_PAGE], charset, signals, offset, cut=len(html) > MAX_PAGE)


def _parse(content: bytes) -> WarcRecord | None:
    # Crawlers store bodies that they unpacked under the header of the packed ones.
    for decode in ("all", "transfer", "none"):
        try:
            record = WarcRecord.from_bytes(content)
            record.parse_http(auto_decode=decode)
        except OSError:
            continue
        return record
    return None


def _looks_like_html(html: bytes) -> bool:
    return re.match(rb"\s*(<!doctype html|<html|<head|<body|<!--)", html[:512], re.I) is not None
