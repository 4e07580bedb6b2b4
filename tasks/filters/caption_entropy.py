"""Drop captions that say little for their length: one sign or one word again and again."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection

_SHORT = 300  # characters up to which counting one after the other is faster
_WORD = re.compile(r"\w+")


class Params(FilterParams):
    """Bounds, both allowed.

    Attributes:
        bits: entropy of a character, given how often each stands in the caption. "a cat" has 1.9,
            an ordinary caption 3 to 4.
        distinct_words: share of words that are no repetition of an earlier one.
    """

    bits: float = Field(default=1.9, ge=0)
    distinct_words: float = Field(default=0.3, ge=0, le=1)


class Filter:
    """Counts characters and words by what they are."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """LOW_ENTROPY."""
        caption = pair["caption"].casefold()
        bits = entropy(caption)
        if bits < self.params.bits:
            return Objection(DropReason.LOW_ENTROPY, f"{bits:.1f} bits a character")
        distinct = distinct_words(caption)
        if distinct < self.params.distinct_words:
            return Objection(DropReason.LOW_ENTROPY, f"{distinct:.0%} of the words are distinct")
        return None

    def measure(self, pair: dict[str, Any]) -> dict[str, float]:
        """`bits` and `distinct_words`."""
        caption = pair["caption"].casefold()
        return {"bits": entropy(caption), "distinct_words": distinct_words(caption)}


def entropy(text: str) -> float:
    """Shannon entropy of the characters of a text, in bits a character; 0 for none."""
    if not text:
        return 0.0
    counts = map(text.count, set(text)) if len(text) < _SHORT else Counter(text).values()
    weighted = sum([count * math.log2(count) for count in counts])
    return math.log2(len(text)) - weighted / len(text)


def distinct_words(text: str) -> float:
    """Share of the words of a text that do not stand in it before; 1 for a text without words."""
    found = _WORD.findall(text)
    return len(set(found)) / len(found) if found else 1.0
