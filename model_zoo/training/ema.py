"""A moving average of weights, off the path of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Average:
    """average := decay · average + (1 - decay) · weights, starting at the first weights seen.

    Tensors that are not floating point (counters, masks) are copied, since they have no average.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move the average towards the present weights."""
        moving = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in moving],
            [weights[name].detach() for name in moving],
            1 - self.decay,
        )
        for name in self.weights.keys() - set(moving):
            self.weights[name].copy_(weights[name])

    def save(self, path: Path) -> None:
        """Write the average, exactly."""
        save_file({name: value.contiguous() for name, value in self.weights.items()}, path)

    def load(self, path: Path) -> None:
        """Continue from an average that `save` wrote."""
        for name, value in load_file(path).items():
            self.weights[name].copy_(value)
