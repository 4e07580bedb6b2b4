"""Drop pictures that are one colour, or all but one.

A drawing of one small thing on a flat ground is no blank: what counts is the share of the picture
that differs from its commonest colour, not how much its pixels vary on the whole.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.pictures import Picture

_SIDE = 64  # of the thumbnail that is looked at: noise of single pixels averages out


class Params(FilterParams):
    """What counts as different, and how much of it there must be.

    Attributes:
        tolerance: levels of 255 by which some channel must differ from the commonest colour.
        share: of the picture that must differ.
    """

    tolerance: int = Field(default=16, ge=0, le=255)
    share: float = Field(default=0.01, ge=0, le=1)


class Filter:
    """Compares a thumbnail with its commonest colour."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def look(self, picture: Picture) -> Objection | None:
        """NEAR_BLANK."""
        different = share_that_differs(picture.image, self.params.tolerance)
        if different < self.params.share:
            return Objection(DropReason.NEAR_BLANK, f"{different:.2%} differs")
        return None

    def measure(self, picture: Picture) -> dict[str, float]:
        """`share` of the picture that differs from its commonest colour."""
        return {"share": share_that_differs(picture.image, self.params.tolerance)}


def share_that_differs(image: Image.Image, tolerance: int) -> float:
    """Share of a picture that differs from its commonest colour, channel by channel."""
    side = (min(_SIDE, image.width), min(_SIDE, image.height))
    small = image if image.size == side else image.resize(side, Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16).reshape(-1, 3)
    # Sixteen levels a channel: enough to find the commonest colour in spite of noise.
    bins = pixels // 16 @ np.array([256, 16, 1], dtype=np.int16)
    commonest = np.median(pixels[bins == np.bincount(bins).argmax()], axis=0)
    return float((np.abs(pixels - commonest).max(axis=1) > tolerance).mean())
