"""Learning rate as a function of the number of updates done, and of nothing else."""

from __future__ import annotations

import math

from model_zoo.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of update `step` (from 0).

    It rises linearly, reaching `learning_rate` with the update after the warm-up's last; then it
    stays, or falls along half a cosine to `final_learning_rate`, which the last update would reach
    if there were one more.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup) / (config.steps - config.warmup)
    fall = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * fall
