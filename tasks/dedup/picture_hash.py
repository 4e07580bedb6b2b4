"""A perceptual hash that sees colour and place, and thumbnails to confirm what it suggests.

The usual 64-bit pHash looks at grey shapes: it takes a red circle for a green one and one drawing
for another. Ours has 256 bits from an 8x8 grid of mean colours: for each of red, green and blue,
which cells are clearly above the middle of the channel's range (192 bits), and where the ends of
that range lie, ten steps each (60 bits; 4 stay zero). Compression and resizing change few of them
(on the demo's drawings 99.7 % of re-encoded copies stay within 16), but so do two drawings of one
scene; so two pictures count as the same only if their 16x16 thumbnails agree, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from schemas.base import Frozen

GRID, THUMBNAIL = 8, 16
HASH_BYTES = 32
THUMBNAIL_BYTES = THUMBNAIL * THUMBNAIL * 3

_CLEARLY = 8.0  # levels above the middle: what compression adds to a flat channel sets no bit
_COMPARED = 1 << 18  # pairs of hashes at a time
_CONFIRMED = 1 << 12  # pairs of thumbnails at a time
_STEPS = np.arange(1, 11) * (255 / 11)


def hash_picture(image: Image.Image) -> bytes:
    """The hash of an RGB picture, 32 bytes; near ones differ in few bits."""
    cells = _means(image, GRID).reshape(-1, 3)
    low, high = cells.min(axis=0), cells.max(axis=0)
    pattern = cells > (low + high) / 2 + _CLEARLY  # [64, 3]
    ends = np.stack([low, high])[:, :, None] > _STEPS  # [2, 3, 10]
    bits = np.concatenate([pattern.T.ravel(), ends.ravel(), np.zeros(4, dtype=bool)])
    return np.packbits(bits).tobytes()


def thumbnail_of(image: Image.Image) -> bytes:
    """The mean colours of 16x16 cells of an RGB picture, row by row, 768 bytes."""
    return _means(image, THUMBNAIL).round().astype(np.uint8).tobytes()


class Likeness(Frozen):
    """How alike the thumbnails of two pictures with near hashes are if the two are the same.

    Attributes:
        mean_difference: levels of 255 by which their thumbnails may differ on average.
        most_difference: and anywhere; this tells an emoji from its variant in another skin tone.
    """

    mean_difference: float = Field(default=2.5, ge=0)
    most_difference: float = Field(default=36.0, ge=0)

    def agree(self, mean: np.ndarray, most: np.ndarray) -> np.ndarray:
        """Which pairs of thumbnails that differ by so much are of one picture, bool [N]."""
        return np.asarray((mean <= self.mean_difference) & (most <= self.most_difference))


class Pictures(NamedTuple):
    """What N pictures are compared by: hashes uint8 [N, 32], thumbnails uint8 [N, 768]."""

    hashes: np.ndarray
    thumbnails: np.ndarray


class Neighbours(NamedTuple):
    """The nearest known picture of each of M.

    Attributes:
        places: among the known, int64 [M].
        same: whether it is the same picture, bool [M].
        bits: in which their hashes differ, int64 [M].
        mean, most: levels by which their thumbnails do, float64 and int16 [M].
    """

    places: np.ndarray
    same: np.ndarray
    bits: np.ndarray
    mean: np.ndarray
    most: np.ndarray


def differences(
    left: np.ndarray, lefts: np.ndarray, right: np.ndarray, rights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How much thumbnails differ: rows `lefts` of `left` from rows `rights` of `right`.

    Args:
        left, right: thumbnails, uint8 [N, 768]; they may lie on disk.
        lefts, rights: int64 [K], pair by pair.

    Returns:
        The mean, float64 [K], and the most, int16 [K], in levels of 255.
    """
    mean, most = np.zeros(len(lefts)), np.zeros(len(lefts), np.int16)
    for start in range(0, len(lefts), _CONFIRMED):
        part = slice(start, start + _CONFIRMED)
        apart = np.abs(left[lefts[part]].astype(np.int16) - right[rights[part]].astype(np.int16))
        mean[part], most[part] = apart.mean(axis=1), apart.max(axis=1)
    return mean, most


def nearest_pictures(
    asked: Pictures, known: Pictures, distance: int, likeness: Likeness
) -> Neighbours:
    """For each asked picture the known one with the nearest hash among those that are the same.

    The same are those whose hashes are within `distance` bits and whose thumbnails agree. Where
    none is, it is the nearest by hash alone. Of equally near ones it is the first.

    Raises:
        ValueError: if nothing is known.
    """
    count = len(asked.hashes)
    places, bits = np.zeros(count, np.int64), np.zeros(count, np.int64)
    same = np.zeros(count, dtype=bool)
    step = max(1, _COMPARED // max(1, len(known.hashes)))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        part = Pictures(asked.hashes[rows], asked.thumbnails[rows])
        apart = _bits_apart(part.hashes, known.hashes)
        places[rows] = apart.argmin(axis=1)
        found, firsts = _first_that_agree(part, known, apart, distance, likeness)
        places[start + found], same[start + found] = firsts, True
        bits[rows] = np.take_along_axis(apart, places[rows, None], axis=1)[:, 0]
    apart_by = differences(asked.thumbnails, np.arange(count), known.thumbnails, places)
    return Neighbours(places, same, bits, *apart_by)


def _bits_apart(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of all pairs of hashes, uint8 [M, 32] and [N, 32], the bits that differ, uint16 [M, N]."""
    left, right = (np.ascontiguousarray(one).view(np.uint64) for one in (left, right))
    apart = np.zeros((len(left), len(right)), dtype=np.uint16)
    for word in range(left.shape[1]):
        apart += np.bitwise_count(left[:, word, None] ^ right[None, :, word])
    return apart


def _first_that_agree(
    asked: Pictures, known: Pictures, apart: np.ndarray, distance: int, likeness: Likeness
) -> tuple[np.ndarray, np.ndarray]:
    """The asked that have a known picture which is the same, and the place of the nearest of it.

    The nearest are looked at first, so that of many drawings of one scene few are.
    """
    best = np.full(len(asked.hashes), -1, dtype=np.int64)
    lefts, rights = np.nonzero(apart <= distance)
    bits = apart[lefts, rights]
    for some in np.unique(bits):
        chosen = np.flatnonzero((bits == some) & (best[lefts] < 0))
        left, right = lefts[chosen], rights[chosen]
        agree = likeness.agree(*differences(asked.thumbnails, left, known.thumbnails, right))
        found, first = np.unique(left[agree], return_index=True)
        best[found] = right[agree][first]
    found = np.flatnonzero(best >= 0)
    return found, best[found]


def _means(image: Image.Image, side: int) -> np.ndarray:
    """Mean colours [side, side, 3] of the cells of a grid, as floats."""
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float64)
