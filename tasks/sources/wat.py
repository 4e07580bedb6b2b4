"""Image-text pairs of a WAT file: the link metadata that Common Crawl takes from its pages.

A WAT file is a twentieth of the pages it speaks of. It tells of `img` elements with `src`, their
`alt` and `title`, of meta elements and links; not of `srcset`, figures and lazy attributes. Most
records speak of no image, and are told before their JSON is parsed. Its form is that of
archive-metadata-extractor (ia-web-commons), whose writer has changed over the years: nothing here
relies on a key being there or on what type it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tasks.sources.found import MAX_CAPTION, Found, Place
from tasks.sources.licenses import license_of
from tasks.sources.open_graph import shared_images
from tasks.sources.optout import HEADERS, signals_of
from tasks.sources.urls import UnusableAddress, absolute_url, host_of
from tasks.sources.warc import METADATA, Fault, records_of
from tasks.text import one_line

MAX_RECORD = 16 << 20  # bytes, unpacked; as Python's objects JSON takes up to 25 times as much
# Either of them is in a record that has an image; `/` may be written `\\/` in JSON.
_IMAGE_MARKS = (b'"IMG@', b"og:image")
_LICENSE_MARKS = (b"icense", b"LICENSE", b"creativecommons")


def pairs_of_wat(
    path: Path, source: str, max_record: int = MAX_RECORD
) -> Iterator[list[Found] | Fault]:
    """Yield the pairs and drops of each record that speaks of images, and each fault.

    Args:
        source: name of the file, for the records of pairs.
    """
    for record in records_of(path, METADATA, max_record):
        if isinstance(record, Fault):
            yield record
            continue
        offset, content = record
        if any(mark in content for mark in _IMAGE_MARKS):
            yield _read(content, source, offset)


def _read(content: bytes, source: str, offset: int) -> list[Found] | Fault:
    try:
        # Between header and content is the first empty line, which a sound record has.
        envelope = orjson.loads(content[content.find(b"\r\n\r\n") + 4 :])
        licensed = any(mark in content for mark in _LICENSE_MARKS)
        return list(_found(_part(envelope, "Envelope"), source, offset, licensed))
    except (orjson.JSONDecodeError, UnusableAddress):
        return Fault.BAD_RECORD


def _found(
    envelope: Mapping[str, Any], source: str, offset: int, licensed: bool
) -> Iterator[Found]:
    response = _part(envelope, "Payload-Metadata", "HTTP-Response-Metadata")
    if _text(_part(response, "Response-Message").get("Status")) not in ("", "200"):
        return
    html = _part(response, "HTML-Metadata")
    head, links = _part(html, "Head"), html.get("Links")
    url = absolute_url(_text(_part(envelope, "WARC-Header-Metadata").get("WARC-Target-URI")))
    metas, base = _entries(head.get("Metas")), _base(head, url)
    signals = signals_of([*_headers(_part(response, "Headers")), *_pairs(metas, "name", "content")])
    linked = [*_entries(head.get("Link")), *_entries(links)] if licensed else []
    licenses = license_of(_pairs(filter(_may_license, linked), "rel", "url"), base)
    place = Place(url, host_of(url), base, source, offset, signals, licenses)
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("path") == "IMG@/src":
            yield _image(place, link)
    properties = (
        (_text(m.get("property") or m.get("name")), _text(m.get("content"))) for m in metas
    )
    for shared in shared_images(properties):
        yield place.judge(
            shared.addresses, one_line(shared.caption, MAX_CAPTION), shared.caption_source
        )


def _may_license(link: Mapping[str, Any]) -> bool:
    """Whether it is worth a closer look: few links of a page are."""
    return "url" in link and ("rel" in link or "creativecommons" in _text(link["url"]).lower())


def _image(place: Place, link: Mapping[str, Any]) -> Found:
    url, caption_source = _text(link.get("url")), "alt"
    caption = one_line(_text(link.get("alt")), MAX_CAPTION)
    if not caption:
        caption, caption_source = one_line(_text(link.get("title")), MAX_CAPTION), "title"
    return place.judge((url,) if url else (), caption, caption_source)


def _base(head: Mapping[str, Any], url: str) -> str:
    try:
        return absolute_url(_text(head.get("Base")), url) if head.get("Base") else url
    except UnusableAddress:
        return url


def _headers(headers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The headers that may forbid use for AI; one that came several times is a list."""
    for name, value in headers.items():
        if name.lower() in HEADERS:
            for one in value if isinstance(value, list) else [value]:
                yield name, _text(one)


def _pairs(entries: Any, first: str, second: str) -> Iterator[tuple[str, str]]:
    return ((_text(one.get(first)), _text(one.get(second))) for one in entries)


def _part(value: Any, *names: str) -> Mapping[str, Any]:
    """The mapping at a path of keys, an empty one if there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _entries(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
