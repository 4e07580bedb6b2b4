"""Drop captions by what their characters are: numbers, signs, shouting, one key held down."""

from __future__ import annotations

import unicodedata
from itertools import groupby
from typing import Any

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection

# What each ASCII character is: a capital, another letter, a digit, a sign.
_KINDS = bytes(
    ord("A" if one.isupper() else "a" if one.isalpha() else "0" if one.isdigit() else "-")
    for one in map(chr, range(256))
)


class Params(FilterParams):
    """Bounds on shares of the characters that are no spaces, all allowed.

    Attributes:
        letters: at least; marks above and below letters count as such.
        digits: at most.
        signs: at most, of what is neither letter nor digit.
        capitals: at most, of the letters.
        run: characters in a row that may be the same.
    """

    letters: float = Field(default=0.5, ge=0, le=1)
    digits: float = Field(default=0.4, ge=0, le=1)
    signs: float = Field(default=0.4, ge=0, le=1)
    capitals: float = Field(default=1.0, ge=0, le=1)
    run: int = Field(default=6, ge=1)


class Filter:
    """Counts letters, digits, signs and capitals, and finds the longest run of one character."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """ODD_CHARACTERS, with the first class that is out of bounds."""
        caption, bounds = "".join(pair["caption"].split()), self.params
        if not caption:
            return _objection("no characters")
        found = shares(caption)
        if found["letters"] < bounds.letters:
            return _objection(f"{found['letters']:.0%} letters")
        for name in ("digits", "signs", "capitals"):
            if found[name] > getattr(bounds, name):
                return _objection(f"{found[name]:.0%} {name}")
        if may_have_run(caption, bounds.run + 1) and longest_run(caption) > bounds.run:
            return _objection(f"{longest_run(caption)} characters in a row are the same")
        return None

    def measure(self, pair: dict[str, Any]) -> dict[str, float]:
        """The shares and the run by name; nothing for a caption of spaces."""
        caption = "".join(pair["caption"].split())
        return {**shares(caption), "run": longest_run(caption)} if caption else {}


def shares(caption: str) -> dict[str, float]:
    """Shares of the characters of a text, which has some and no spaces, by name."""
    if caption.isascii():
        kinds = caption.encode().translate(_KINDS)
        capitals, digits = kinds.count(b"A"), kinds.count(b"0")
        letters = capitals + kinds.count(b"a")
    else:
        letters = sum(map(str.isalpha, caption))
        letters += sum(unicodedata.category(one)[0] == "M" for one in caption)
        digits, capitals = sum(map(str.isdigit, caption)), sum(map(str.isupper, caption))
    return {
        "letters": letters / len(caption),
        "digits": digits / len(caption),
        "signs": (len(caption) - letters - digits) / len(caption),
        "capitals": capitals / max(letters, 1),
    }


def may_have_run(caption: str, length: int) -> bool:
    """False only if no character stands `length` times in a row.

    A text beside itself moved by a character: where both agree their exclusive or is zero. As one
    large number that takes a twentieth of the time that looking at each character would.
    """
    text = caption.encode("utf-32-le", "surrogatepass")
    number = int.from_bytes(text, "little")
    same = (number ^ number >> 32).to_bytes(len(text), "little")
    return bytes(4 * (length - 1)) in same


def longest_run(caption: str) -> int:
    """The most characters in a row that are the same."""
    return max(len(list(run)) for _, run in groupby(caption))


def _objection(detail: str) -> Objection:
    return Objection(DropReason.ODD_CHARACTERS, detail)
