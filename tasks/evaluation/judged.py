"""What is declared of measuring reconstructions while an image tokenizer trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Frozen


class Judged(Frozen):
    """The newest checkpoint is measured each time that the measurement before is done, and in the
    end the trained network.

    Attributes:
        pictures: most that are looked at.
        inception: a file of torch-fidelity's Inception weights, for rFID on its features.
        device: of all networks that it takes. On a GPU they need memory beside the training.
    """

    pictures: int = Field(default=512, ge=2)
    inception: str | None = Field(default=None, min_length=1)
    device: Literal["cpu", "cuda"] = "cpu"
