"""Image-text pairs of one HTML page.

A pair is an image and its best caption: `alt`, else the `figcaption` of the figure around it, else
its `title`; and the page's Open Graph image with its description. An image without any of them is
no pair, and is told as a drop, as is one whose address cannot be asked for or whose page forbids
use for AI.

A page may be made to cost its reader dear. What the parser takes the square of is bounded before
it parses (`_tame`), and nothing here looks at an element twice for each image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from resiliparse.parse.html import HTMLTree

from tasks.sources.encodings import decode
from tasks.sources.found import MAX_CAPTION, Found, Place
from tasks.sources.image_addresses import ATTRIBUTES, SETS, addresses
from tasks.sources.licenses import license_of
from tasks.sources.open_graph import shared_images
from tasks.sources.optout import signals_of
from tasks.sources.urls import UnusableAddress, absolute_url, host_of
from tasks.sources.warc import Page
from tasks.text import one_line

MAX_CLIMB = 64  # elements between an image and its figure; bounds the work on absurd nesting
MAX_DEPTH = 512  # of a figcaption; as deep as browsers nest elements
MAX_SOURCES = 32  # of a picture

_LICENSES = (
    'a[rel~="license" i], link[rel~="license" i], area[rel~="license" i],'
    ' a[href*="creativecommons.org/" i]'
)
_LICENSE_WORDS = ("license", "License", "LICENSE", "creativecommons.org")
# Elements that a parser opens again in every paragraph after the one where they were left open.
_REOPENED = "b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u"
_WITH_ATTRIBUTES = re.compile(rf"<(?:{_REOPENED})[\s/]", re.IGNORECASE)
_FORMATTING = re.compile(rf"<(?=/?(?:{_REOPENED})[\s/>])", re.IGNORECASE)
_MOST_REOPENED = 2_000_000  # elements; about 0.1 GB


def pairs_of_page(page: Page, source: str) -> Iterator[Found]:
    """The pairs of a page and its drops: those of the images in their order, then the shared ones.

    Raises:
        UnusableAddress: if the page's own address is none; without it nothing can be resolved.
    """
    url = absolute_url(page.url)
    return _found(page, url, source)


def _found(page: Page, url: str, source: str) -> Iterator[Found]:
    html = decode(page.html, page.charset)
    document: Any = HTMLTree.parse(_tame(html)).document
    metas = [_attributes(meta, _META) for meta in _all(document, "meta")]
    named = ((meta.get("name", ""), meta.get("content", "")) for meta in metas)
    base = _base(document, url)
    licenses = _Licenses(document, base, any(word in html for word in _LICENSE_WORDS))
    place = Place(
        url, host_of(url), base, source, page.offset,
        signals_of([*page.signals.items(), *named]), licenses.of_page,
    )  # fmt: skip
    captions, pictures = _figcaptions(document), dict[Any, list[dict[str, str]]]()
    figures = len(document.get_elements_by_tag_name("figure")) > 0
    for image in _all(document, "img"):
        figure = _above(image, "figure") if figures else None
        given = _attributes(image, _IMAGE)
        caption, caption_source = _caption(given, captions.get(figure))
        where = addresses(given, _sources(image, pictures))
        yield place.judge(where, caption, caption_source, licenses.of_figure(figure))
    properties = ((m.get("property") or m.get("name", ""), m.get("content", "")) for m in metas)
    for shared in shared_images(properties):
        caption = one_line(shared.caption, MAX_CAPTION)
        yield place.judge(shared.addresses, caption, shared.caption_source)


def _tame(html: str) -> str:
    """The page, without its formatting tags where there are so many that parsing would not end.

    Each of n elements that are left open is opened again in each of m paragraphs (WHATWG HTML,
    13.2.4.3): 70 kB of HTML took 3 GB.
    """
    if len(html) < 5000:
        return html
    again = len(_WITH_ATTRIBUTES.findall(html))
    return _FORMATTING.sub("< ", html) if again * html.count("<") > _MOST_REOPENED else html


class _Licenses:
    """The license of the page, and those of its figures."""

    def __init__(self, document: Any, base: str, any_there: bool) -> None:
        links = document.query_selector_all(_LICENSES)[:] if any_there else ()
        by_figure: dict[Any, list[tuple[str, str]]] = {}
        for link in links:
            said = (link.getattr("rel") or "", link.getattr("href") or "")
            by_figure.setdefault(_above(link, "figure"), []).append(said)
        self._found = {figure: license_of(said, base) for figure, said in by_figure.items()}
        self.of_page = self._found.pop(None, None)

    def of_figure(self, figure: Any) -> str | None:
        """That of a figure, if it has one of its own."""
        return self._found.get(figure)


def _base(document: Any, url: str) -> str:
    for element in _all(document, "base"):
        if element.hasattr("href"):
            try:
                return absolute_url(element.getattr("href") or "", url)
            except UnusableAddress:
                return url
    return url


def _caption(image: dict[str, str], below: str | None) -> tuple[str, str]:
    """The best caption and where it was found; an empty one when there is none."""
    alt = one_line(image.get("alt", ""), MAX_CAPTION)
    if alt:
        return alt, "alt"
    return (
        (below, "figcaption") if below else (one_line(image.get("title", ""), MAX_CAPTION), "title")
    )


def _figcaptions(document: Any) -> dict[Any, str]:
    """The first caption of each figure.

    One within another one is passed over: reading them all would take the square of the page.
    """
    found: dict[Any, str] = {}
    for element in _all(document, "figcaption"):
        figure, outer = None, element.parent
        for _ in range(MAX_DEPTH):
            if outer is None or outer.tag == "figcaption":
                break
            figure = outer if figure is None and outer.tag == "figure" else figure
            outer = outer.parent
        if outer is None and figure is not None and figure not in found:
            found[figure] = one_line(element.inner_text, MAX_CAPTION)
    return found


def _sources(image: Any, pictures: dict[Any, list[dict[str, str]]]) -> list[dict[str, str]]:
    """The attributes of the `source` elements beside an image; each picture is read once."""
    picture = image.parent
    if picture is None or picture.tag != "picture":
        return []
    if picture not in pictures:
        beside = [one for one in picture.children[:] if one.tag == "source"]
        pictures[picture] = [_attributes(one, _SOURCE) for one in beside[:MAX_SOURCES]]
    return pictures[picture]


def _above(element: Any, tag: str) -> Any:
    element = element.parent
    for _ in range(MAX_CLIMB):
        if element is None or element.tag == tag:
            return element
        element = element.parent
    return None


_META = ("name", "property", "content")
_IMAGE = frozenset({*ATTRIBUTES, "alt", "title"})
_SOURCE = frozenset({*SETS, "type"})


def _all(node: Any, tag: str) -> Any:
    # A slice is made at once; each step of an iteration would begin at the first element again.
    return node.get_elements_by_tag_name(tag)[:]


def _attributes(element: Any, wanted: Any) -> dict[str, str]:
    return {name: element.getattr(name) or "" for name in element.attrs if name in wanted}
