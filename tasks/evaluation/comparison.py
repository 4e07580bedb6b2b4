"""What is declared of a comparison of drawn pictures with real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field, field_validator, model_validator

from tasks.dedup.picture_hash import Likeness

CACHED = "cached"
# The file that torch-fidelity fetches, once somebody has let it, under the name that it gives it.
_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


class Comparison(Likeness):
    """How sets of pictures are compared (section 3.1 of the paper).

    Attributes:
        radii: standard deviations, in pixels, of the Gaussian blur that both sides get before;
            the paper's go from 0 to 8.
        drawn: most drawn pictures that are compared, chosen by `seed`; None: all.
        of_each: only so many best-ranked candidates of each prompt; the paper's is 1, None: all.
        neighbours: whose distance is the radius of a picture's surroundings in precision and
            recall (Kynkäänniemi et al., arXiv 1904.06991).
        inception: a file of torch-fidelity's Inception weights; `cached`: that of its cache if it
            is there. Nothing is ever fetched.
        overlap: from this cosine of a ranker's features on, a picture to evaluate on counts as one
            of the training pictures; measured with and without those. None: not looked for.
        overlap_bits: the same, up to this Hamming distance of perceptual hashes, in bits of 256,
            if the thumbnails agree as well (`mean_difference`, `most_difference`, those of
            `dedup_images`). Where both are declared, a picture counts that is within either.
    """

    radii: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    drawn: int | None = Field(default=None, ge=2)
    of_each: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    neighbours: int = Field(default=3, gt=0)
    inception: str | None = Field(default=None, min_length=1)
    overlap: float | None = Field(default=None, gt=0, le=1)
    overlap_bits: int | None = Field(default=None, ge=0, le=64)

    @field_validator("radii")
    @classmethod
    def _are_radii(cls, radii: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [radius for radius in radii if not 0 <= radius <= 64]
        if wrong:
            raise ValueError(f"a blur of {wrong[0]} pixels; radii go from 0 to 64")
        if len({f"{radius:g}" for radius in radii}) != len(radii):
            raise ValueError(f"{list(radii)} names one radius twice")
        return radii

    @model_validator(mode="after")
    def _thumbnails_are_compared(self) -> Comparison:
        if self.overlap_bits is None and self.likeness != Likeness():
            raise ValueError(
                "mean_difference and most_difference bound what overlap_bits finds; declare"
                " overlap_bits, too, or leave them out"
            )
        return self

    @property
    def likeness(self) -> Likeness:
        """When the thumbnails of near hashes agree; nothing else of what is declared."""
        return Likeness(mean_difference=self.mean_difference, most_difference=self.most_difference)

    @property
    def overlap_bounds(self) -> tuple[str, ...]:
        """The bounds of overlap that are declared, by name."""
        return tuple(
            name for name in ("overlap", "overlap_bits") if getattr(self, name) is not None
        )

    def sources(self) -> tuple[str, ...]:
        """The weights, if they are declared and at hand: they are part of what is measured."""
        if self.inception != CACHED:
            return (self.inception,) if self.inception else ()
        return (str(cached_weights()),) if cached_weights().exists() else ()


def cached_weights() -> Path:
    """Where torch-fidelity keeps Inception's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS
