"""Drop captions that are mostly boilerplate: words of a template, not of the picture.

The paper drops captions that match patterns such as "photographed on <date>" in the many ways a
date is written. Here what has a telling form (`tasks.lexicon.formats`: dates, credits, file names,
cameras, addresses, prices) and fixed phrases are cut out, and the words left are weighed: a caption
is dropped when at least `share` of its letters and digits is boilerplate, or when there is no word
of content in it. A good caption may thus begin with "image of" or name a logo.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon.ascii_words import LETTERS_AND_DIGITS
from tasks.lexicon.boilerplate import IN_PHRASES, PARTICLES, PHRASES, STRONG, WEAK, phrase_at
from tasks.lexicon.formats import FORMATS, SIGNS, may_hold_forms, runs_of

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_GAP = " ¦ "  # words that were not neighbours do not become one


class Params(FilterParams):
    """How much of a caption may be boilerplate.

    Attributes:
        share: of letters and digits, particles left out, that drops a caption.
    """

    share: float = Field(default=0.5, gt=0, le=1)


class Weights(NamedTuple):
    """Letters and digits of a caption by what they are, and the kinds of boilerplate found."""

    content: int
    weak: int
    boilerplate: int
    kinds: tuple[str, ...]


class Filter:
    """Cuts out boilerplate and weighs what is left."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """BOILERPLATE, with its share and the kinds that were found."""
        content, weak, boilerplate, kinds = weigh(pair["caption"])
        if not content:
            return Objection(DropReason.BOILERPLATE, ", ".join(kinds) or "no word of content")
        # Weak words are content beside content; beside boilerplate they are part of it.
        share = (boilerplate + weak) / (boilerplate + weak + content) if boilerplate else 0.0
        if share >= self.params.share:
            return Objection(DropReason.BOILERPLATE, f"{share:.0%} {', '.join(kinds)}")
        return None

    def measure(self, pair: dict[str, Any]) -> dict[str, float]:
        """`share` of boilerplate."""
        content, weak, boilerplate, _ = weigh(pair["caption"])
        if not content:
            return {"share": 1.0}
        cut = boilerplate + weak if boilerplate else 0
        return {"share": cut / (boilerplate + weak + content)}


def weigh(caption: str) -> Weights:
    """Tell a caption's content from its boilerplate."""
    words, cut = _words(caption), 0
    kinds: list[str] = []
    if may_hold_forms(caption, words):
        before = _letters(words)
        words, kinds = _without_forms(caption, words)
        cut = max(before - _letters(words), 0)
    left, phrases = _without_phrases(words)
    left = [word for word in left if word not in PARTICLES]
    strong = 0 if STRONG.isdisjoint(left) else sum([len(word) for word in left if word in STRONG])
    weak = sum([len(word) for word in left if word in WEAK or word.isdecimal()])
    content = sum(map(len, left)) - strong - weak
    cut += phrases
    kinds += ["phrase"] * bool(phrases) + ["words"] * bool(strong)
    return Weights(content, weak, cut + strong, tuple(kinds))


def _without_forms(caption: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The words that are no part of a form, and the kinds of those that were found."""
    kinds, runs = list[str](), runs_of(caption)
    for kind, form in FORMATS.items():
        if not SIGNS[kind].is_in(caption, runs):
            continue
        caption, found = form.cut(caption, _GAP)
        if found:
            kinds.append(kind)
            runs = runs_of(caption)
    return (_words(caption) if kinds else words), kinds


def _without_phrases(words: list[str]) -> tuple[list[str], int]:
    """The words that are no part of a phrase, and the letters of those that are."""
    if IN_PHRASES.isdisjoint(words):
        return words, 0
    left, letters, place = list[str](), 0, 0
    while place < len(words):
        length = phrase_at(words, place) if words[place] in PHRASES else 0
        if length:
            letters += _letters(words[place : place + length])
        else:
            left.append(words[place])
        place += length or 1
    return left, letters


def _words(text: str) -> list[str]:
    if text.isascii() and "'" not in text:
        return LETTERS_AND_DIGITS(text)
    found = _WORD.findall(text.lower())
    if "'" in text or "’" in text:
        return [word.replace("'", "").replace("’", "") for word in found]
    return found


def _letters(words: Iterable[str]) -> int:
    return sum([len(word) for word in words if word not in PARTICLES])
