"""Drop captions that are not in the wanted languages.

The paper uses cld3, which has no wheel for this Python. Short captions are hard for any identifier
of letters, so two witnesses speak here: py3langid's naive Bayes (log-odds of the best unwanted
language against the best wanted one, in nats) and the common words of `tasks.lexicon.languages`,
each worth `word_weight` nats. Only clear odds drop a caption: "tea ceremony" looks Romanian to
py3langid by 12 nats, and names are of no language.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import Field, field_validator

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon import words
from tasks.lexicon.languages import speaking_for

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
        margin: nats by which an unwanted language must lead.
        word_weight: nats that one common word is worth, for or against.
        foreign_letters: share of letters of other scripts that drops a caption, if all the wanted
            languages are written in Latin letters.
    """

    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    margin: float = Field(default=12.0, ge=0)
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


class Filter:
    """Weighs letters and words for and against the wanted languages."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._latin_only = set(params.languages) <= LATIN
        self._identifier = _identifier(LATIN if self._latin_only else LATIN | OTHER)
        self._ours, self._theirs = speaking_for(params.languages)

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """WRONG_LANGUAGE, or None with the language written to the row (none without letters)."""
        caption = pair["caption"]
        found = _WORD.findall(caption)
        letters = sum(map(len, found))
        if not letters:
            return None
        if self._latin_only and not caption.isascii():
            foreign = len(_FOREIGN_LETTER.findall(caption)) / letters
            if foreign > self.params.foreign_letters:
                return Objection(DropReason.WRONG_LANGUAGE, f"{foreign:.0%} foreign letters")
        wanted, unwanted, odds = self._weigh(caption, found)
        if odds > self.params.margin:
            return Objection(DropReason.WRONG_LANGUAGE, f"{unwanted} by {odds:.0f} nats")
        pair["language"] = wanted  # below the margin it has the benefit of the doubt
        return None

    def _weigh(self, caption: str, found: list[str]) -> tuple[str, str, float]:
        """The best wanted and the best unwanted language, and the log-odds (nats) between them."""
        small = [word.lower() for word in found]
        ours = sum(word in self._ours for word in small)
        theirs = sum(word in self._theirs for word in small)
        if 2 * ours >= len(small) and not theirs and len(self.params.languages) == 1:
            # Clear, and asking the letters would cost 40 µs.
            return self.params.languages[0], "", -math.inf
        text = _without_names(caption) if ours and not theirs else caption
        ranked = self._identifier.rank(text.lower())
        wanted, score = next(one for one in ranked if one[0] in self.params.languages)
        unwanted, other = next(one for one in ranked if one[0] not in self.params.languages)
        odds = float(other - score) + self.params.word_weight * (theirs - ours)
        return wanted, unwanted, odds


@functools.lru_cache(maxsize=4)
def _identifier(languages: frozenset[str]) -> LanguageIdentifier:
    # Reading the model takes 0.3 s, so it is read once a process.
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(sorted(languages))
    return identifier


def _without_names(caption: str) -> str:
    """The caption without the capitalised words behind its first one: they may be names."""
    first, *others = caption.split()
    return " ".join([first, *(word for word in others if not word[:1].isupper())])
