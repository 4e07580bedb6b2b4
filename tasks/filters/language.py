"""Drop captions that are not in the wanted languages.

The paper uses cld3, which has no wheel for this Python. Short captions are hard for any identifier
of letters, so two witnesses speak here: py3langid's naive Bayes (log-odds of the best unwanted
language against the best wanted one, in nats) and the common words of `tasks.lexicon.languages`,
each worth `word_weight` nats. Only clear odds drop a caption: "tea ceremony" looks Romanian to
py3langid by 12 nats, and names are of no language.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon import words
from tasks.lexicon.ascii_words import LETTERS
from tasks.lexicon.languages import speaking_for
from tasks.lexicon.letters import letters

# Not Latin itself: names of plants and animals are no reason to drop a caption.
LATIN = words(
    """
    af az ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it lt lv ms mt nl nn no pl pt ro sk
    sl sq sv sw tl tr uz vi
    """
)
OTHER = words("ar bg el fa he hi ja ko ru th uk zh")

_WORD = re.compile(r"[^\W\d_]+")
_FOREIGN_LETTER = re.compile(
    r"[^\W\d_A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff\uff21-\uff5a]"  # no Latin letter
)


class Params(FilterParams):
    """Which languages to keep, and how sure one must be of another to drop a caption.

    Attributes:
        languages: ISO 639-1 codes.
        margin: nats by which an unwanted language must lead; below zero, a wanted one must lead by
            as many, and what is not surely of a wanted language is dropped.
        word_weight: nats that one common word is worth, for or against.
        foreign_letters: share of letters of other scripts that drops a caption, if all the wanted
            languages are written in Latin letters.
    """

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    margin: float = 12.0
    word_weight: float = Field(default=7.0, ge=0)
    foreign_letters: float = Field(default=1 / 3, ge=0, le=1)

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [language for language in languages if language not in LATIN | OTHER]
        if unknown:
            known = ", ".join(sorted(LATIN | OTHER))
            raise ValueError(f"language {unknown[0]!r} cannot be told; these can: {known}")
        return languages


class Odds(NamedTuple):
    """The best wanted and the best unwanted language, and the log-odds (nats) between them."""

    wanted: str
    unwanted: str
    odds: float


class Filter:
    """Weighs letters and words for and against the wanted languages."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._latin_only = set(params.languages) <= LATIN
        self._letters = letters(LATIN if self._latin_only else LATIN | OTHER)
        self._ours, self._theirs = speaking_for(params.languages)
        names = self._letters.languages
        self._wanted = np.array([name in params.languages for name in names])
        self._names = np.array(names)

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """WRONG_LANGUAGE, or None with the language written to the row (none without letters)."""
        return self.judge_many([pair])[0]

    def judge_many(self, pairs: list[dict[str, Any]]) -> list[Objection | None]:
        """The same of many pairs; the letters of all are looked at together."""
        verdicts: list[Objection | None] = [None] * len(pairs)
        places, texts, leads = list[int](), list[str](), list[int]()
        for place, pair in enumerate(pairs):
            caption = pair["caption"]
            small, foreign = self._words(caption)
            if foreign > self.params.foreign_letters:
                detail = f"{foreign:.0%} foreign letters"
                verdicts[place] = Objection(DropReason.WRONG_LANGUAGE, detail)
            elif small:
                ours, theirs = self._speaking(small)
                if self._clear(small, ours, theirs):  # as most captions are
                    pair["language"] = self.params.languages[0]
                    continue
                places.append(place)
                texts.append(_asked(caption, ours, theirs))
                leads.append(theirs - ours)
        for place, one in zip(places, self._by_letters(texts, leads), strict=True):
            if one.odds > self.params.margin:
                detail = f"{one.unwanted} by {one.odds:.0f} nats"
                verdicts[place] = Objection(DropReason.WRONG_LANGUAGE, detail)
            else:  # below the margin it has the benefit of the doubt
                pairs[place]["language"] = one.wanted
        return verdicts

    def measure(self, pair: dict[str, Any]) -> dict[str, float]:
        """`odds` (nats) of the best unwanted language against the best wanted one."""
        caption = pair["caption"]
        small, foreign = self._words(caption)
        if not small:
            return {}
        ours, theirs = self._speaking(small)
        if self._clear(small, ours, theirs):
            return {"foreign_letters": foreign}
        odds = self._by_letters([_asked(caption, ours, theirs)], [theirs - ours])[0].odds
        return {"foreign_letters": foreign, "odds": odds}

    def _words(self, caption: str) -> tuple[list[str], float]:
        """The words of a caption in lower case, and the share of its letters that is foreign."""
        if caption.isascii():
            return LETTERS(caption), 0.0
        found, foreign = _WORD.findall(caption), 0.0
        if found and self._latin_only:
            foreign = len(_FOREIGN_LETTER.findall(caption)) / sum(map(len, found))
        return [word.lower() for word in found], foreign

    def _speaking(self, small: list[str]) -> tuple[int, int]:
        """How many words speak for the wanted languages, and how many for others."""
        ours, theirs = self._ours.__contains__, self._theirs.__contains__
        return sum(map(ours, small)), sum(map(theirs, small))

    def _clear(self, small: list[str], ours: int, theirs: int) -> bool:
        """Whether the letters need not be asked."""
        return 2 * ours >= len(small) and not theirs and len(self.params.languages) == 1

    def _by_letters(self, texts: list[str], leads: list[int]) -> list[Odds]:
        scores = self._letters.scores(texts)
        ours, theirs = scores[:, self._wanted], scores[:, ~self._wanted]
        wanted, unwanted = ours.argmax(axis=1), theirs.argmax(axis=1)
        lead = theirs.max(axis=1, initial=-np.inf).astype(float) - ours.max(axis=1)
        odds = lead + self.params.word_weight * np.array(leads, dtype=float)
        best = self._names[self._wanted][wanted].tolist()
        other = self._names[~self._wanted][unwanted].tolist()
        return [Odds(*one) for one in zip(best, other, odds.tolist(), strict=True)]


def _asked(caption: str, ours: int, theirs: int) -> str:
    """What the letters are asked about."""
    return (_without_names(caption) if ours and not theirs else caption).lower()


def _without_names(caption: str) -> str:
    """The caption without the capitalised words behind its first one: they may be names."""
    first, *others = caption.split()
    return " ".join([first, *(word for word in others if not word[:1].isupper())])
