"""Writes WARC files (ISO 28500, version 1.0), gzip by record, the same bytes for the same pages."""

from __future__ import annotations

import gzip
import hashlib
import uuid
from base64 import b32encode
from collections.abc import Iterable
from pathlib import Path

from infra.demo_web.pages import WebPage

# Every page was "crawled" at this moment: a time that ran would make other bytes each time.
_DATE = "2024-01-15T12:00:00Z"
_HTTP_DATE = "Mon, 15 Jan 2024 12:00:00 GMT"
_NAMESPACE = uuid.UUID("5b0f6f5e-7d0e-5c1d-9d7c-3f6a0d5c2b11")


def write_warc(path: Path, pages: Iterable[WebPage]) -> int:
    """Write a file of response records with one warcinfo record before them; how many pages."""
    count = 0
    with path.open("wb") as file:
        info = b"software: tapir demo web\r\nformat: WARC File Format 1.0\r\n"
        fields = {"WARC-Filename": path.name, "Content-Type": "application/warc-fields"}
        file.write(_record("warcinfo", path.name, fields, info))
        for page in pages:
            block = _http_response(page)
            fields = {
                "WARC-Target-URI": page.url,
                "Content-Type": "application/http; msgtype=response",
                "WARC-Payload-Digest": _digest(page.body),
            }
            file.write(_record("response", page.url, fields, block))
            count += 1
    return count


def _record(kind: str, name: str, fields: dict[str, str], block: bytes) -> bytes:
    head = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(_NAMESPACE, f'{kind} {name}')}>",
        "WARC-Date": _DATE,
        **fields,
        "WARC-Block-Digest": _digest(block),
        "Content-Length": str(len(block)),
    }
    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
    return gzip.compress(f"WARC/1.0\r\n{lines}\r\n".encode() + block + b"\r\n\r\n", 6, mtime=0)


def _http_response(page: WebPage) -> bytes:
    headers = [*page.headers, ("Date", _HTTP_DATE), ("Content-Length", str(len(page.body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + page.body


def _digest(content: bytes) -> str:
    return "sha1:" + b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
