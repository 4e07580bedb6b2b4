"""FSDP2's engine (torch's `fully_shard`): parameters sharded inside each machine, block by block.

Each residual block is gathered by itself, a block ahead of use. A matrix is cut along its longer
side, and one that is several below each other (queries, keys, values) across them, as the paper
cuts its matrices (appendix E): so every process has the same part of each.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from model_zoo.training.config import TrainingConfig
from model_zoo.training.engine import Arrive, Loss, Objective
from model_zoo.training.fragments import Fragment, flat_gradient
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.precision import Linear, residual_blocks
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import Batch, Recipe


class FsdpEngine:
    """Parameters, gradients and moments sharded over the processes of a machine."""

    sharded = True
    overlaps = True

    def __init__(
        self, recipe: Recipe, config: TrainingConfig, processes: Processes, passes: int
    ) -> None:
        self.passes = passes
        self.network = recipe.network
        self.objective = Objective(recipe)
        self._shard(processes)
        self.network.to(processes.device)
        # Only now: the optimiser's parameters are the shards.
        self.optimizer = build_optimizer(recipe, config)
        named = [(n, cast(DTensor, p)) for n, p in self.network.named_parameters()
                 if p.requires_grad]  # fmt: skip
        self._homes = {n: nn.Parameter(_local(p), requires_grad=False) for n, p in named}
        self._named = named
        self._replace(named)
        found = [_fragment(n, p, self._homes[n], processes) for n, p in named]
        self.fragments = [one for one in found if one.numel]
        self._sharded = [dict(named)[one.name] for one in self.fragments]
        self._arrive: Arrive | None = None
        for number, parameter in enumerate(self._sharded):
            parameter.register_post_accumulate_grad_hook(partial(self._take, number))

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """The recipe's loss, between FSDP2's hooks."""
        result: Loss = self.objective(batch, step, generator)
        return result

    def backward(self, loss: Tensor) -> None:
        """One pass of several; gradients are added shard by shard."""
        (loss / self.passes).backward()

    def last_backward(self, loss: Tensor, arrive: Arrive) -> list[Tensor]:
        """The local shards of all gradients, zero where the loss does not depend on them."""
        self._arrive = arrive
        self.backward(loss)
        self._arrive = None
        for fragment in self.fragments:
            if fragment.home.grad is None:
                fragment.home.grad = torch.zeros_like(fragment.home)
        return [flat_gradient(fragment.home) for fragment in self.fragments]

    def _take(self, number: int, parameter: Tensor) -> None:
        """FSDP2 has reduced a gradient to this process's shard."""
        assert parameter.grad is not None
        home = self.fragments[number].home
        home.grad = _local(parameter.grad)
        if self._arrive is not None:
            self._arrive(number, flat_gradient(home))

    def step(self) -> None:
        """The optimiser's step on the local shards."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        for _, parameter in self._named:
            parameter.grad = None

    def publish(self) -> None:
        """Nothing to do: the homes share their memory with the network's shards."""

    def _shard(self, processes: Processes) -> None:
        mesh = DeviceMesh.from_group(processes.machine_group, processes.device.type)
        stacked = {
            module.weight
            for module in self.network.modules()
            if isinstance(module, Linear) and module.parts > 1
        }

        def place(parameter: nn.Parameter) -> Shard:
            return Shard(_axis(parameter, parameter in stacked, processes.per_machine))

        options: dict[str, Any] = {"mesh": mesh, "shard_placement_fn": place}
        for block in residual_blocks(self.network).values():
            fully_shard(block, **options)
        fully_shard(self.objective, **options)

    def _replace(self, named: list[tuple[str, DTensor]]) -> None:
        """Give the optimiser plain tensors: what it does is the same, without DTensor's price."""
        by_parameter = {id(p): self._homes[n] for n, p in named}
        for group in self.optimizer.param_groups:
            group["params"] = [by_parameter[id(p)] for p in group["params"]]


def _axis(parameter: Tensor, stacked: bool, processes: int) -> int:
    if parameter.ndim != 2 or parameter.shape[1] % processes:
        return 0
    return 1 if stacked or parameter.shape[1] > parameter.shape[0] else 0


def _local(tensor: Tensor) -> Tensor:
    local = cast(DTensor, tensor.detach()).to_local()
    assert local.is_contiguous()
    return local


def _fragment(name: str, parameter: DTensor, home: Tensor, processes: Processes) -> Fragment:
    axis = cast(Shard, parameter.placements[0]).dim
    length = parameter.shape[axis]
    # As torch.chunk cuts: equal runs, the last ones shorter or empty.
    first = min(length, processes.place * -(-length // processes.per_machine))
    across = parameter.numel() // length
    return Fragment(name, tuple(parameter.shape), first * across, home, 0, home.numel(), axis)
