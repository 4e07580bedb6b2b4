"""Image-text pairs of one HTML page.

A pair is an image and its best caption: `alt`, else the `figcaption` of the figure around it, else
its `title`. An image without any of them is no pair, and is told as a drop, as is one whose address
cannot be asked for or whose page forbids use for AI.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from schemas.records import DropReason, drop_record, pair_key
from tasks.optout import forbids, signals_of
from tasks.text import one_line
from tasks.urls import UnusableAddress, absolute_url, host_of
from tasks.warc import Page

STAGE = "collect_pairs"
MAX_CAPTION = 4096  # characters; longer ones are cut, and are no captions anyway
MAX_ADDRESS = 2048  # characters of an address that was refused, in the table of drops
MAX_CLIMB = 64  # elements between an image and its figure; bounds the work on absurd nesting

_META_CHARSET = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([-\w:.]+)", re.IGNORECASE
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What WHATWG means by these names; Python's encodings of the name have fewer characters.
_SUPERSETS = {"shift_jis": "cp932", "euc_kr": "cp949", "gbk": "gb18030"}


class Found(NamedTuple):
    """A row of the pair table, or of the drop table."""

    row: dict[str, Any]
    dropped: bool


def pairs_of_page(page: Page, source: str) -> Iterator[Found]:
    """Yield the pairs of a page and its drops, in the order of the images.

    Raises:
        UnusableAddress: if the page's own address is none; without it nothing can be resolved.
    """
    url = absolute_url(page.url)
    document: Any = HTMLTree.parse(decode(page.html, page.charset)).document
    base = _base(document, url)
    metas = ((_get(meta, "name"), _get(meta, "content")) for meta in _all(document, "meta"))
    signals = signals_of([*page.signals.items(), *metas])
    for image in _all(document, "img"):
        caption, caption_source = _caption(image)
        row = {
            "page_url": url, "domain": host_of(url), "caption": caption,
            "caption_source": caption_source, "source": source, "offset": page.offset,
            "language": None, "opt_out": "; ".join(signals) or None,
        }  # fmt: skip
        yield _judge(row, _get(image, "src"), base)


def decode(html: bytes, charset: str | None) -> str:
    """HTML as text: by its byte order mark, the header, its own words, or by what it looks like.

    Never fails: what cannot be decoded becomes U+FFFD.
    """
    for mark, name in _BOMS:
        if html.startswith(mark):
            return html[len(mark) :].decode(name, "replace")
    encoding = _known(charset) or _declared_inside(html)
    if encoding is None:
        try:
            return html.decode()
        except UnicodeDecodeError:
            encoding = _detected(html)
    return str(bytes_to_str(html, encoding, errors="replace"))


def _declared_inside(html: bytes) -> str | None:
    found = _META_CHARSET.search(html[:2048])
    name = _known(found[1].decode("ascii", "replace")) if found else None
    # The words could be read as ASCII, so they are not in UTF-16 whatever they say (WHATWG).
    return "utf-8" if name and name.startswith("utf-16") else name


def _detected(html: bytes) -> str:
    # The detector's own name: mapped to the web's, Korean (cp949) would become UTF-8.
    name = detect_encoding(html, html5_compatible=False) or "utf-8"
    try:
        return _known(name) or codecs.lookup(name).name
    except LookupError:  # it knows some that Python does not, such as EUC-TW
        return "utf-8"


def _known(label: str | None) -> str | None:
    """Python's name of an encoding that the web has a label for, or None."""
    name = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    return _SUPERSETS.get(name, name) if name else None


def _base(document: Any, url: str) -> str:
    for element in _all(document, "base"):
        if element.hasattr("href"):
            try:
                return absolute_url(_get(element, "href"), url)
            except UnusableAddress:
                return url
    return url


def _caption(image: Any) -> tuple[str, str]:
    """The best caption and where it was found; an empty one when there is none."""
    alt = one_line(_get(image, "alt"), MAX_CAPTION)
    if alt:
        return alt, "alt"
    below = _figcaption(image)
    if below:
        return below, "figcaption"
    return one_line(_get(image, "title"), MAX_CAPTION), "title"


def _figcaption(image: Any) -> str:
    element = image.parent
    for _ in range(MAX_CLIMB):
        if element is None:
            return ""
        if element.tag == "figure":
            captions = _all(element, "figcaption")
            return one_line(captions[0].inner_text, MAX_CAPTION) if captions else ""
        element = element.parent
    return ""


def _judge(row: dict[str, Any], address: str, base: str) -> Found:
    try:
        url = absolute_url(address, base)
    except UnusableAddress as error:
        shown = one_line(address, MAX_ADDRESS)
        key = pair_key(address, row["page_url"], row["caption"])
        row = {**row, "key": key, "image_url": shown}
        return Found(drop_record(row, STAGE, error.reason, error.detail), True)
    row = {"key": pair_key(url, row["page_url"], row["caption"]), "image_url": url, **row}
    if row["opt_out"] and forbids(row["opt_out"].split("; ")):
        return Found(drop_record(row, STAGE, DropReason.OPTED_OUT, row["opt_out"]), True)
    if not row["caption"]:
        detail = "no alt, figcaption or title"
        return Found(drop_record(row, STAGE, DropReason.NO_CAPTION, detail), True)
    return Found(row, False)


def _all(node: Any, tag: str) -> Any:
    return node.get_elements_by_tag_name(tag)


def _get(element: Any, attribute: str) -> str:
    return element.getattr(attribute) or ""
