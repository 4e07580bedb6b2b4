"""The plain engine: the whole network and its moments in every process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from model_zoo.training.engine import Arrive, Loss
from model_zoo.training.fragments import Fragment, flat_gradient
from model_zoo.training.optimizer import AdamW
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import Batch, Recipe


class PlainEngine:
    """For small networks, on a CPU above all, where it has nothing to load."""

    sharded = False
    overlaps = False

    def __init__(self, recipe: Recipe, processes: Processes, passes: int, optimizer: AdamW) -> None:
        self.recipe = recipe
        self.passes = passes
        self.processes = processes
        self.optimizer = optimizer
        recipe.network.to(processes.device)
        self.fragments = [
            Fragment(name, tuple(p.shape), 0, p, 0, p.numel())
            for name, p in recipe.network.named_parameters()
            if p.requires_grad
        ]

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """The recipe's loss of this process's samples."""
        return self.recipe.loss(batch, step, generator)

    def backward(self, loss: Tensor) -> None:
        """One pass of several."""
        (loss / self.passes).backward()

    def last_backward(self, loss: Tensor, arrive: Arrive) -> list[Tensor]:
        """All gradients; those that the loss does not depend on are zero."""
        self.backward(loss)
        for fragment in self.fragments:
            gradient = fragment.home.grad
            # Convolutions leave gradients in an order of their own.
            fragment.home.grad = (
                torch.zeros_like(fragment.home) if gradient is None else gradient.contiguous()
            )
        gradients = [flat_gradient(fragment.home) for fragment in self.fragments]
        if self.processes.per_machine > 1:
            self._average(gradients)
        return gradients

    def _average(self, gradients: list[Tensor]) -> None:
        flat = torch.cat(gradients)
        dist.all_reduce(flat, group=self.processes.machine_group)
        flat /= self.processes.per_machine
        parts = flat.split([len(gradient) for gradient in gradients])
        torch._foreach_copy_(gradients, list(parts))

    def step(self) -> None:
        """The optimiser's step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def publish(self) -> None:
        """Nothing to do: the homes are the network's own parameters."""
