"""Engines: what computes gradients, shards what is kept of a network, and applies updates.

`torch` holds everything in every process; `deepspeed` shards by ZeRO 1, 2 or 3; `fsdp` is torch's
FSDP2. All take the same optimiser and give the same losses. Each shards inside a machine only, and
is a small adapter: it says which fragments of parameters its process updates and where their
gradients are. All else happens outside, in one way for all of them (`model_zoo.training.update`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from model_zoo.training.config import TrainingConfig
from model_zoo.training.fragments import Fragment
from model_zoo.training.optimizer import AdamW, build_optimizer
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import Batch, Recipe

Loss = tuple[Tensor, Batch]
Arrive = Callable[[int, Tensor], None]
"""Told the number of a fragment and its gradient."""


class Engine(Protocol):
    """One training's weights and optimiser, spread over the processes of a machine."""

    sharded: bool
    """Whether fragments differ among the processes of a machine, and together make the network."""

    overlaps: bool
    """Whether gradients are told of while the backward pass goes on."""

    optimizer: AdamW
    """The optimiser, whose parameters are the fragments' homes."""

    @property
    def fragments(self) -> Sequence[Fragment]:
        """What this process updates; the same list on its counterparts on other machines."""
        ...

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """This process's loss and metrics."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one pass of several to those that there are."""
        ...

    def last_backward(self, loss: Tensor, arrive: Arrive) -> list[Tensor]:
        """The gradients of the fragments, flat, fp32, means over the passes and the processes of
        the machine; to be altered in place before `step`. An engine that overlaps calls `arrive`
        for each as it comes."""
        ...

    def step(self) -> None:
        """Update the weights with the gradients as they now are, and forget the gradients."""
        ...

    def publish(self) -> None:
        """Make weights that were written into the fragments' homes those of the network."""
        ...


class Objective(nn.Module):
    """The recipe's loss as a module's forward, for engines that hook into modules: whatever part of
    the network the loss calls, its weights are there."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.network = recipe.network
        self._loss = recipe.loss

    def forward(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """Loss and metrics of a batch."""
        return self._loss(batch, step, generator)


def _widen_scalars(network: nn.Module) -> None:
    """Give parameters without a dimension one, since neither DeepSpeed nor FSDP2 takes others.

    Files of weights have the shapes that the network had before.
    """
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 0:
                wide = nn.Parameter(parameter.detach().view(1), parameter.requires_grad)
                setattr(module, name, wide)


def count_passes(config: TrainingConfig, processes: Processes) -> int:
    """Passes of a process through the network that make up one update.

    Raises:
        ValueError: if its samples do not divide into them.
    """
    share = config.batch_size // processes.size
    micro = config.micro_batch or share
    if share % micro:
        raise ValueError(
            f"micro_batch: the {share} samples of a process do not divide into passes of {micro}"
        )
    return share // micro


def build_engine(recipe: Recipe, config: TrainingConfig, processes: Processes) -> Engine:
    """The engine that the configuration names; every process holds the same initial weights.

    Raises:
        ValueError: if what it needs is not installed, or it cannot do that with a GPU.
    """
    if config.offload and processes.device.type != "cpu":
        # DeepSpeed copies gradients to the CPU while we would already exchange them, and between
        # GPUs there are no groups for what lies there.
        raise ValueError(
            "offload: with GPUs the exchange of gradients cannot follow; leave it out, and declare"
            " zero_stage 3, moments in 8 bits, recompute or a smaller micro_batch"
        )
    passes = count_passes(config, processes)
    if config.engine != "torch":
        _widen_scalars(recipe.network)
    # Imported here, since each takes a second or more of what the others do not need.
    if config.engine == "deepspeed":
        from model_zoo.training.engines.zero import ZeroEngine

        return ZeroEngine(recipe, config, processes, passes, build_optimizer(recipe, config))
    if config.engine == "fsdp":
        from model_zoo.training.engines.fsdp import FsdpEngine

        return FsdpEngine(recipe, config, processes, passes)
    from model_zoo.training.engines.plain import PlainEngine

    return PlainEngine(recipe, processes, passes, build_optimizer(recipe, config))
