"""Where the picture of an `img` element is: of several addresses the one of the largest picture.

A page may give one picture in several widths (`srcset`, `picture`), and many put a placeholder into
`src` and the address into an attribute that a script reads when the image is scrolled to. The order
of preference: the widest candidate, or the one of the highest density; lazy attributes; `src`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# lazysizes and most others; jQuery Lazy Load; WP Rocket and a3 Lazy Load; slick; Echo; LazyLoad XT.
LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-echo", "data-original-src")
SETS = ("srcset", "data-srcset", "data-lazy-srcset", "data-original-set")
ATTRIBUTES = ("src", *SETS, *LAZY)

_MAX_SET = 1 << 16  # characters of a srcset; of a longer one the beginning is read
_WORD = re.compile(r"[\s,]*+(\S+)")
_DESCRIPTORS = re.compile(r"(?:[^,(]++|\([^)]*+\)?+)*+")  # a comma within parentheses ends nothing
_SIZE = re.compile(r"(?:^|\s)(\d{1,9}(?:\.\d{1,9})?)([wx])(?=\s|$)")
_TEMPLATE = re.compile(r"\{\{|\$\{|\{%|<%|\[\[")  # what a script would have filled in
_UNREADABLE = frozenset({"image/svg+xml", "image/jxl"})  # types that are no pictures for us


class Candidate(NamedTuple):
    """One address of a `srcset`; width in pixels or density, whichever it declares."""

    address: str
    width: float
    density: float


def addresses(image: Mapping[str, str], sources: Iterable[Mapping[str, str]] = ()) -> list[str]:
    """The addresses of an image, best first.

    Args:
        image: the attributes of the `img` element.
        sources: those of the `source` elements of the `picture` that it is in.
    """
    lazy = [value for name in LAZY if (value := image.get(name))]
    plain = [image["src"]] if image.get("src") else []
    candidates = _candidates(image, sources)
    if not candidates and not lazy:
        return plain
    best = sorted((one for one in candidates if one.width), key=lambda one: -one.width)
    if not best:
        dense = (one for one in candidates if one.density > 1)
        best = sorted(dense, key=lambda one: -one.density)
    rest = [one.address for one in candidates if one.density == 1]
    ordered = [*(one.address for one in best), *lazy, *plain, *rest]
    usable = [one for one in dict.fromkeys(ordered) if not _is_placeholder(one)]
    return usable or plain or ordered[:1]


def parse_srcset(text: str) -> list[Candidate]:
    """The candidates of a `srcset` attribute, as browsers take it apart (WHATWG HTML, 4.8.4.2)."""
    found, position, text = [], 0, text[:_MAX_SET]
    while (word := _WORD.match(text, position)) is not None:
        address, position = word[1], word.end()
        if address.endswith(","):
            address, descriptors = address.rstrip(","), ""
        else:
            ended = _DESCRIPTORS.match(text, position)
            assert ended is not None  # it matches nothing, too
            descriptors, position = ended[0], ended.end()
        sizes = {unit: float(number) for number, unit in _SIZE.findall(descriptors)}
        width = sizes.get("w", 0.0)
        density = sizes.get("x", 0.0 if width else 1.0)
        if address:
            found.append(Candidate(address, width, density))
    return found


def _candidates(image: Mapping[str, str], sources: Iterable[Mapping[str, str]]) -> list[Candidate]:
    """Of the image's own sets first: among equals they are what every browser can show."""
    readable = (one for one in sources if one.get("type", "").strip().lower() not in _UNREADABLE)
    return [
        candidate
        for attributes in (image, *readable)
        for name in SETS
        if attributes.get(name)
        for candidate in parse_srcset(attributes[name])
    ]


def _is_placeholder(address: str) -> bool:
    start = address[:32].lstrip().lower()
    return start.startswith(("data:", "about:", "javascript:")) or bool(_TEMPLATE.search(address))
