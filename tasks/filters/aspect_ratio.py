"""Drop banners and columns: pictures whose aspect ratio is outside [1/2, 2] (appendix C)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.pictures import Picture


class Params(FilterParams):
    """Bounds of width over height, both ends allowed."""

    min: float = Field(default=0.5, gt=0)
    max: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Filter:
    """Divides width by height."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def look(self, picture: Picture) -> Objection | None:
        """ASPECT_RATIO."""
        ratio = picture.width / picture.height
        if not self.params.min <= ratio <= self.params.max:
            size = f"{picture.width}x{picture.height}"
            return Objection(DropReason.ASPECT_RATIO, f"{size} pixels, {ratio:.2f}")
        return None

    def measure(self, picture: Picture) -> dict[str, float]:
        """`ratio` of width to height."""
        return {"ratio": picture.width / picture.height}
