"""Text of the web made comparable: one line, one kind of space, one form of each character."""

from __future__ import annotations

import re
import unicodedata

# Invisible and of no meaning for a reader. The joiners U+200C and U+200D stay: Persian words and
# emoji are built with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_SPACES = re.compile("[\\s\x00-\x1f\x7f-\x9f\ud800-\udfff\u3000]+")


def one_line(text: str, limit: int | None = None) -> str:
    """Text in NFC with single spaces, no control characters, at most `limit` characters."""
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text if limit is None else text[:limit].rstrip()
