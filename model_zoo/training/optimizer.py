"""AdamW over two groups of parameters: those that decay and those that do not."""

from __future__ import annotations

import torch
from torch import nn

from model_zoo.training.config import TrainingConfig
from model_zoo.training.recipe import Recipe


def parameter_groups(recipe: Recipe, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters of a recipe's network, by whether weight decay applies.

    Raises:
        ValueError: if the network has nothing to train.
    """
    named = [(name, p) for name, p in recipe.network.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError(f"network: {type(recipe.network).__name__} has no trainable parameters")
    decaying: list[nn.Parameter] = [p for name, p in named if recipe.decay(name, p)]
    others: list[nn.Parameter] = [p for name, p in named if not recipe.decay(name, p)]
    groups: list[dict[str, object]] = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(recipe: Recipe, config: TrainingConfig) -> torch.optim.AdamW:
    """torch's own AdamW, which every engine takes and which needs no compiler."""
    return torch.optim.AdamW(
        parameter_groups(recipe, config.weight_decay),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
