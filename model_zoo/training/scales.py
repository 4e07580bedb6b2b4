"""One gradient scale a residual block, for fp16 (DALL-E, section 2.4, figure 4 and appendix D).

The paper starts each scale at M · 2^13, M being the number of replicas, and keeps it in
[M · 2^7, M · 2^24], for a loss that is divided by the whole batch. Here each process's loss is a
mean over its own samples and gradients are averaged, so that M drops out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_zoo.training.precision import residual_blocks

FIRST, LEAST, MOST = 2.0**13, 2.0**7, 2.0**24
GROWTH = 2.0 ** (1 / 1000)  # after each update without an overflow
BACKOFF = 2.0**-0.5  # after one with
WINDOW = 125  # updates without a second division


@dataclass
class Scale:
    """A block's scale, and how many updates ago it was divided."""

    value: float = FIRST
    since: int = WINDOW

    def adapt(self, overflowed: bool) -> None:
        """What an update makes of it."""
        self.since += 1
        if not overflowed:
            self.value *= GROWTH
        elif self.since > WINDOW:
            self.value *= BACKOFF
            self.since = 0
        self.value = min(max(self.value, LEAST), MOST)


@dataclass
class Scales:
    """The scales of a network's blocks; the blocks hold them as tensors for their passes."""

    network: nn.Module
    scales: dict[str, Scale] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = residual_blocks(self.network)
        self.scales = {name: Scale() for name in self.blocks}
        for name in self.blocks:
            self._tell(name)

    def unscale(self, gradients: Mapping[str, Sequence[Tensor]], overflowed: set[str]) -> None:
        """Divide blocks' gradients by their scales, clear those that overflowed, and adapt.

        Args:
            gradients: this process's parts of the gradients of each block's parameters; the scales
                of other blocks stay as they are.
            overflowed: the blocks in whose gradients some process found what is not finite.
        """
        for name, own in gradients.items():
            if own and name in overflowed:
                torch._foreach_zero_(list(own))
            elif own:
                torch._foreach_div_(list(own), self.scales[name].value)
            self.scales[name].adapt(name in overflowed)
            self._tell(name)

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint keeps of them."""
        return {name: [one.value, one.since] for name, one in self.scales.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Continue from what `state` gave."""
        self.scales = {name: Scale(value, int(since)) for name, (value, since) in state.items()}
        for name in self.blocks:
            self._tell(name)

    def _tell(self, name: str) -> None:
        block = self.blocks[name]
        device = next(block.parameters()).device
        block.scale = torch.tensor(self.scales[name].value, device=device)
