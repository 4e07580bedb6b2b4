"""Drop pictures whose shorter side is too small to show anything: icons, tracking pixels."""

from __future__ import annotations

from pydantic import Field

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.pictures import Picture


class Params(FilterParams):
    """The bound.

    Attributes:
        pixels: that the shorter side has at least.
    """

    pixels: int = Field(default=32, ge=1)


class Filter:
    """Looks at the shorter side."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def look(self, picture: Picture) -> Objection | None:
        """TOO_SMALL."""
        if min(picture.width, picture.height) < self.params.pixels:
            return Objection(DropReason.TOO_SMALL, f"{picture.width}x{picture.height} pixels")
        return None

    def measure(self, picture: Picture) -> dict[str, float]:
        """`pixels` of the shorter side."""
        return {"pixels": min(picture.width, picture.height)}
