"""The body of an answer: checked before it is read, and read within bounds."""

from __future__ import annotations

import asyncio
import zlib

import aiohttp

from infra.gateway.outcomes import Outcome, Refused
from infra.image_types import image_type

_UNTYPED = ("application/octet-stream", "binary/octet-stream", "application/x-binary")


def check_headers(response: aiohttp.ClientResponse, max_bytes: int) -> None:
    """Refuse what is no image or too large by its own account, before its body is read.

    Raises:
        Refused: NOT_AN_IMAGE or TOO_LARGE.
    """
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type and not (content_type.startswith("image/") or content_type in _UNTYPED):
        raise Refused(Outcome.NOT_AN_IMAGE, f"its type is {content_type[:80]}")
    if response.content_length is not None and response.content_length > max_bytes:
        detail = f"{response.content_length} bytes declared, the bound is {max_bytes}"
        raise Refused(Outcome.TOO_LARGE, detail)


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """All bytes of the body, as long as they are no more than `max_bytes`.

    Raises:
        Refused: TOO_LARGE, or NOT_AN_IMAGE if it is encoded in a way that was not asked for.
    """
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise Refused(Outcome.TOO_LARGE, f"more than the bound of {max_bytes} bytes")
        parts.append(part)
    return _decoded(b"".join(parts), _encoding(response), max_bytes)


async def read_start(response: aiohttp.ClientResponse, size: int) -> bytes:
    """The first `size` bytes of the body, or all of it if it has fewer."""
    try:
        start = await response.content.readexactly(size)
    except asyncio.IncompleteReadError as end:
        start = end.partial
    return _decoded(start, _encoding(response), size, cut=True)


def require_image(body: bytes) -> None:
    """Refuse a body that does not begin like an image.

    Raises:
        Refused: NOT_AN_IMAGE.
    """
    if not body:
        raise Refused(Outcome.NOT_AN_IMAGE, "the body is empty")
    if image_type(body) is None:
        raise Refused(Outcome.NOT_AN_IMAGE, "the first bytes are those of no raster image")


def _encoding(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Encoding", "identity").strip().lower()


def _decoded(body: bytes, encoding: str, max_bytes: int, cut: bool = False) -> bytes:
    """The content of a body; some servers compress although `identity` was asked for."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(Outcome.NOT_AN_IMAGE, f"content encoding {encoding[:40]!r} was not asked for")
    decoder = zlib.decompressobj(wbits=47)  # zlib or gzip, by its header
    try:
        content = decoder.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refused(Outcome.NOT_AN_IMAGE, f"no {encoding} content", error=str(error)) from error
    if len(content) > max_bytes and not cut:
        raise Refused(Outcome.TOO_LARGE, f"more than the bound of {max_bytes} bytes unpacked")
    return content[:max_bytes]
