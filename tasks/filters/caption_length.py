"""Drop captions that are too short to describe a picture, or too long to be a caption."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon.ascii_words import LETTERS

# A run of letters; a Chinese, Japanese or Korean character is about a word by itself.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’-][^\W\d_]+)*"
)


class Params(FilterParams):
    """Bounds, both ends allowed. Three words are the bound of Conceptual 12M."""

    min_characters: int = Field(default=5, ge=0)
    max_characters: int = Field(default=1000, ge=1)
    min_words: int = Field(default=3, ge=0)
    max_words: int = Field(default=200, ge=1)


class Filter:
    """Counts characters and words."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """TOO_SHORT or TOO_LONG."""
        bounds, caption = self.params, pair["caption"]
        characters = len(caption)
        if characters > bounds.max_characters:  # before the words of a very long one are counted
            return Objection(DropReason.TOO_LONG, f"{characters} characters")
        words = count_words(caption)
        if characters < bounds.min_characters or words < bounds.min_words:
            return Objection(DropReason.TOO_SHORT, f"{characters} characters, {words} words")
        if words > bounds.max_words:
            return Objection(DropReason.TOO_LONG, f"{words} words")
        return None

    def measure(self, pair: dict[str, Any]) -> dict[str, float]:
        """`characters` and `words`."""
        caption = pair["caption"]
        return {"characters": len(caption), "words": count_words(caption)}


def count_words(caption: str) -> int:
    """How many words a caption has; those with a hyphen or an apostrophe within are one."""
    if caption.isascii() and "-" not in caption and "'" not in caption:
        return len(LETTERS(caption))
    return len(_WORD.findall(caption))
