"""MinHash of captions (Broder, 1997): signatures whose share of equal places estimates how many
character 5-grams two captions have in common (Jaccard), computed for thousands of captions at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

PLACES = 128  # of a signature; the estimate of a resemblance r errs by sqrt(r (1 - r) / 128)
GRAM = 5  # characters
_TOGETHER = 512  # captions
_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x100000001B3)


def normal(caption: str) -> str:
    """What is compared: words in one case, single spaces between them."""
    return " ".join(_WORD.findall(caption.casefold()))


def signatures(captions: Sequence[str]) -> np.ndarray:
    """Uint32 [N, PLACES]; captions without a letter have one of their own, all the same."""
    parts = [
        _signatures([normal(one) for one in captions[start : start + _TOGETHER]])
        for start in range(0, len(captions), _TOGETHER)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, PLACES), np.uint32)


def _signatures(texts: list[str]) -> np.ndarray:
    padded = [text.ljust(GRAM) for text in texts]
    lengths = np.array([len(text) for text in padded])
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    grams = _hashes(points)
    starts = np.cumsum(lengths) - lengths
    whole = np.arange(len(points)) - np.repeat(starts, lengths) <= np.repeat(
        lengths - GRAM, lengths
    )
    firsts = np.cumsum(lengths - GRAM + 1) - (lengths - GRAM + 1)
    odd, added = _functions()
    values = ((grams[whole][:, None] * odd + added) >> np.uint64(32)).astype(np.uint32)
    return np.asarray(np.minimum.reduceat(values, firsts, axis=0))


def _hashes(points: np.ndarray) -> np.ndarray:
    """A hash of the GRAM characters from each place on; those at the end are cut short."""
    found = np.zeros(len(points), dtype=np.uint64)
    for step in range(GRAM):
        shifted = np.zeros(len(points), dtype=np.uint64)
        shifted[: len(points) - step] = points[step:]
        found = found * _BASE + shifted + np.uint64(1)
    found ^= found >> np.uint64(31)
    found *= np.uint64(0x9E3779B97F4A7C15)
    return found ^ (found >> np.uint64(29))


def _functions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1997)
    odd = rng.integers(0, 2**63, PLACES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return odd, rng.integers(0, 2**63, PLACES, dtype=np.uint64)


def resemblance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The estimated Jaccard coefficient of signatures, row by row."""
    return np.asarray((left == right).mean(axis=1))


def band_rows(similarity: float) -> int:
    """Places in a band: the most with which pairs of that similarity share one nearly surely."""
    for rows in (32, 16, 8, 4, 2):
        if (1 - similarity**rows) ** (PLACES // rows) < 0.01:
            return rows
    return 1
