"""Drop captions that say little for their length: one sign or one word again and again."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon.ascii_words import WORD_CHARACTERS

_SHORT = 300  # characters up to which counting one after the other is faster
_WEIGHTED = [0.0, *(count * math.log2(count) for count in range(1, _SHORT))]
_TERMS = np.array(_WEIGHTED)
_TOGETHER = 1024  # captions, whose counts stay in the cache
_ROUNDING = 1e-6  # bits; sums are taken in another order when many captions are counted at once
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
        return self._judge(pair["caption"].casefold())

    def judge_many(self, pairs: list[dict[str, Any]]) -> list[Objection | None]:
        """The same of many pairs; the characters of many captions are counted at once."""
        captions = [pair["caption"].casefold() for pair in pairs]
        verdicts: list[Objection | None] = [None] * len(pairs)
        for start in range(0, len(captions), _TOGETHER):
            some = captions[start : start + _TOGETHER]
            least = np.nan_to_num(entropies(some), nan=-1.0) - _ROUNDING
            for place, (caption, bits) in enumerate(zip(some, least.tolist(), strict=True), start):
                if bits < self.params.bits or distinct_words(caption) < self.params.distinct_words:
                    verdicts[place] = self._judge(caption)
        return verdicts

    def _judge(self, caption: str) -> Objection | None:
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
    if len(text) < _SHORT:
        # Sorted: the order of a set differs from process to process, and rounding with it.
        weighted = sum(map(_WEIGHTED.__getitem__, sorted(map(text.count, set(text)))))
    else:
        weighted = sum([count * math.log2(count) for count in Counter(text).values()])
    return math.log2(len(text)) - weighted / len(text)


def entropies(texts: Sequence[str]) -> np.ndarray:
    """The entropy of each text to within `_ROUNDING`, float64 [N]; NaN where it is not ASCII."""
    plain = [text if text.isascii() else "" for text in texts]
    lengths = np.array([len(text) for text in plain])
    rows = np.repeat(np.arange(len(texts)) * 128, lengths)
    characters = np.frombuffer("".join(plain).encode(), np.uint8)
    counts = np.bincount(rows + characters, minlength=128 * len(texts)).reshape(-1, 128)
    if counts.max(initial=0) >= _SHORT:
        return np.full(len(texts), np.nan)
    weighted = _TERMS.take(counts).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(lengths) - weighted / lengths


def distinct_words(text: str) -> float:
    """Share of the words of a text that do not stand in it before; 1 for a text without words."""
    found = WORD_CHARACTERS(text) if text.isascii() else _WORD.findall(text)
    return len(set(found)) / len(found) if found else 1.0
