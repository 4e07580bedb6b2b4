"""The bytes of a page as text, in whatever encoding they are."""

from __future__ import annotations

import codecs
import re

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

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
