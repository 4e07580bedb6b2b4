"""The learning rate: a function of the updates done, or of how the loss has fallen.

Only a plateau's schedule has a state, which checkpoints keep.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from model_zoo.training.config import PlateauConfig, TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of update `step` (from 0), before any halving at a plateau.

    It rises linearly, reaching `learning_rate` with the update after the warm-up's last; then it
    stays, or falls along half a cosine to `final_learning_rate`, which the last update would reach
    if there were one more.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / (config.warmup + 1)
    if config.schedule != "cosine":
        return config.learning_rate
    done = (step - config.warmup) / (config.steps - config.warmup)
    fall = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * fall


@dataclass
class Plateau:
    """Halves the rate where the smoothed loss no longer falls (see `PlateauConfig`)."""

    config: PlateauConfig
    seen: int = 0
    smoothed: float = 0.0
    best: float = math.inf
    since: int = 0
    halved: int = 0

    @property
    def factor(self) -> float:
        """What the rate is multiplied by."""
        return 0.5**self.halved

    def look(self, loss: float) -> None:
        """Take in the loss of an update."""
        self.seen += 1
        # A mean over the first updates, a moving average over `window` afterwards.
        self.smoothed += (loss - self.smoothed) / min(self.seen, self.config.window)
        if self.smoothed < self.best - self.config.least * abs(self.best) or self.seen == 1:
            self.best, self.since = self.smoothed, 0
            return
        self.since += 1
        if self.since >= self.config.patience and self.halved < self.config.halvings:
            self.halved += 1
            self.best, self.since = self.smoothed, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        values = asdict(self)
        del values["config"]
        return values

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)
