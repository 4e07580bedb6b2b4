"""Drop images that give no picture: damaged, cut short, too large to be decoded, animated."""

from __future__ import annotations

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.pictures import MAX_PIXELS, Animated, Picture, Undecodable


class Params(FilterParams):
    """What may be decoded.

    Attributes:
        max_pixels: that an image may declare; looked at before a pixel is made.
        animated: whether an image of several frames is dropped or stands for its first one.
    """

    max_pixels: int = Field(default=MAX_PIXELS, gt=0)
    animated: Animated = "drop"


class Filter:
    """Decodes the picture; later filters find it decoded."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def look(self, picture: Picture) -> Objection | None:
        """UNDECODABLE, TRUNCATED, BOMB or ANIMATED."""
        picture.max_pixels = self.params.max_pixels
        picture.animated = self.params.animated
        try:
            picture.image.getbbox()
        except Undecodable as error:
            return Objection(DropReason(error.reason), error.detail)
        return None
