"""Words of ASCII texts, which most captions are, at a quarter of a regular expression's cost."""

from __future__ import annotations

from collections.abc import Callable


class AsciiWords:
    """Lower-case runs of the ASCII characters of a kind, as `[kind]+` finds them in the text."""

    def __init__(self, of_kind: Callable[[str], bool]) -> None:
        characters = map(chr, range(128))
        text = "".join(one.lower() if of_kind(one) else " " for one in characters)
        self._table = text.encode().ljust(256)

    def __call__(self, text: str) -> list[str]:
        """The words of a text, which must be ASCII."""
        return text.encode().translate(self._table).decode().split()


LETTERS = AsciiWords(str.isalpha)
LETTERS_AND_DIGITS = AsciiWords(str.isalnum)
WORD_CHARACTERS = AsciiWords(lambda one: one.isalnum() or one == "_")  # \w
