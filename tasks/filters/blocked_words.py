"""Drop captions with words or phrases that are not wanted, as whole words in either case."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from infra.work import Work
from schemas.artifact import Unit
from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon.lists import prepare_list, read_list

_WORD = re.compile(r"[^\W_]+")


class Params(FilterParams):
    """The list.

    Attributes:
        words: words, or phrases of several.
        files: paths, globs or URLs of lists, a word or phrase a line.
    """

    words: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if not self.words and not self.files:
            raise ValueError("give words, or files that list them")
        for word in self.words:
            if not _normal(word):
                raise ValueError(f"words: {word!r} has no letter or digit")
        return self

    def sources(self) -> tuple[str, ...]:
        """The lists."""
        return self.files


def prepare(params: Params, parts: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """The words of the files, the same for every part."""
    return (prepare_list(params.files, _normal, work),) * len(parts) if params.files else ()


class Filter:
    """Looks up each word, and the phrases that begin with it."""

    def __init__(self, params: Params, prepared: Path | None = None) -> None:
        listed = read_list(prepared) if prepared else []
        entries = {entry for entry in [*map(_normal, params.words), *listed] if entry}
        self._phrases: dict[str, list[str]] = {}
        for entry in sorted(entries):
            self._phrases.setdefault(entry.partition(" ")[0], []).append(entry)
        self._first = self._phrases.keys()

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """BLOCKED_WORD, with the entry that was found."""
        words = _WORD.findall(pair["caption"].casefold())
        if self._first.isdisjoint(words):
            return None
        text = f" {' '.join(words)} "
        for word in words:
            for phrase in self._phrases.get(word, ()):
                if f" {phrase} " in text:
                    return Objection(DropReason.BLOCKED_WORD, phrase)
        return None


def _normal(entry: str) -> str:
    return " ".join(_WORD.findall(entry.casefold()))
