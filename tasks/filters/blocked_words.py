"""Drop captions with words or phrases that are not wanted, as whole words in either case."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import field_validator

from infra.work import Work
from schemas.artifact import Unit
from schemas.records import DropReason
from tasks.filters import Objection
from tasks.lexicon.ascii_words import LETTERS_AND_DIGITS
from tasks.lexicon.lists import Listing, prepare_list, read_list

_WORD = re.compile(r"[^\W_]+")


class Params(Listing):
    """The list.

    Attributes:
        words: words, or phrases of several.
    """

    words: tuple[str, ...] = ()

    @field_validator("words")
    @classmethod
    def _have_letters(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for word in words:
            if not _normal(word):
                raise ValueError(f"words: {word!r} has no letter or digit")
        return words


def prepare(params: Params, parts: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """The words of the files, the same for every part."""
    return prepare_list(params, parts, _normal, work)


class Filter:
    """Looks up each word, and the phrases that begin with it."""

    def __init__(self, params: Params, prepared: Path | None = None) -> None:
        listed = [*map(_normal, params.words), *read_list(prepared)]
        entries = {entry for entry in listed if entry}
        self._phrases: dict[str, list[str]] = {}
        for entry in sorted(entries):
            self._phrases.setdefault(entry.partition(" ")[0], []).append(entry)
        self._first = self._phrases.keys()

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """BLOCKED_WORD, with the entry that was found."""
        words = _words(pair["caption"])
        if self._first.isdisjoint(words):
            return None
        text = f" {' '.join(words)} "
        for word in words:
            for phrase in self._phrases.get(word, ()):
                if f" {phrase} " in text:
                    return Objection(DropReason.BLOCKED_WORD, phrase)
        return None


def _normal(entry: str) -> str:
    return " ".join(_words(entry))


def _words(text: str) -> list[str]:
    return LETTERS_AND_DIGITS(text) if text.isascii() else _WORD.findall(text.casefold())
