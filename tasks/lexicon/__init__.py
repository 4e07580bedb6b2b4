"""Words and patterns that caption filters look for."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text that lists them."""
    return frozenset(text.split())
