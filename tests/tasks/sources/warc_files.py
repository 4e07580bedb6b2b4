"""WARC files for tests, written by warcio, which the code under test does not use."""

from __future__ import annotations

import io
import json

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

HTML = "text/html; charset=utf-8"


class WarcMaker:
    """Collects records; `offsets` are where each of them begins, and the end."""

    def __init__(self, packed: bool = True) -> None:
        self._buffer = io.BytesIO()
        self._writer = WARCWriter(self._buffer, gzip=packed)
        self.offsets = [0]

    def add(self, url, body, kind=HTML, status="200 OK", headers=(), record="response"):
        """Add a response."""
        fields = [*([("Content-Type", kind)] if kind else []), *headers]
        answer = StatusAndHeaders(status, fields, protocol="HTTP/1.1")
        content = body if isinstance(body, bytes) else body.encode()
        made = self._writer.create_warc_record(
            url, record, payload=io.BytesIO(content), http_headers=answer
        )
        self._writer.write_record(made)
        self.offsets.append(self._buffer.tell())
        return self

    def bytes(self):
        """The file."""
        return self._buffer.getvalue()


def simple(pages: int, packed: bool = True, host: str = "a.test") -> WarcMaker:
    """Pages with one image each."""
    maker = WarcMaker(packed)
    for number in range(pages):
        image = f'<img src="i{number}.png" alt="picture number {number}">'
        maker.add(f"http://{host}/p{number}", f"<html><body>{image} {'x' * number}</body></html>")
    return maker


def add_wat(maker: WarcMaker, url: str, payload, record="metadata") -> WarcMaker:
    """Add a record of link metadata."""
    content = (
        payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    )
    made = maker._writer.create_warc_record(
        url, record, payload=io.BytesIO(content), warc_content_type="application/json"
    )
    maker._writer.write_record(made)
    maker.offsets.append(maker._buffer.tell())
    return maker
