"""A moving average of weights, off the path of training: each process averages its fragments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model_zoo.training.fragments import Fragment


class Average:
    """average := decay · average + (1 - decay) · weights, starting at the first weights seen.

    Attributes:
        values: flat averages, in the order of the fragments.
    """

    def __init__(self, fragments: Sequence[Fragment], decay: float) -> None:
        self.fragments = fragments
        self.decay = decay
        self.values: list[Tensor] = [fragment.weight.clone() for fragment in fragments]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        if self.values:
            weights = [fragment.weight for fragment in self.fragments]
            torch._foreach_lerp_(self.values, weights, 1 - self.decay)
