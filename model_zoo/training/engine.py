"""What computes gradients and updates weights: plain torch, or DeepSpeed's sharded optimiser.

Both take the same optimiser and give the same losses. `torch` is for small networks on a CPU, where
it has nothing to load; `deepspeed` is for everything else and shards by ZeRO.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model_zoo.training.config import TrainingConfig
from model_zoo.training.optimizer import build_optimizer, set_learning_rate
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import Batch, Recipe

Loss = tuple[Tensor, Batch]


class Engine(Protocol):
    """One training's weights and optimiser, spread over its processes; all of them call it."""

    elastic: bool
    """Whether a saved state can be loaded by another number of processes."""

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """This process's loss and metrics."""
        ...

    def update(self, loss: Tensor, rate: float) -> float:
        """One step of the optimiser; the norm of the gradient over all processes, unclipped."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """The network's whole state, fp32; the first process may use it until the next update."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and moments into a folder, which is there."""
        ...

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote. The caller has checked its hashes."""
        ...


def build_engine(recipe: Recipe, config: TrainingConfig, processes: Processes) -> Engine:
    """The engine that the configuration names; every process holds the same initial weights."""
    recipe.network.to(processes.device)
    if config.engine == "torch":
        return TorchEngine(recipe, config, processes)
    return DeepSpeedEngine(recipe, config, processes)


class TorchEngine:
    """The whole network and its moments in every process; gradients are averaged."""

    elastic = True
    _FILE = "torch.pt"

    def __init__(self, recipe: Recipe, config: TrainingConfig, processes: Processes) -> None:
        self.recipe = recipe
        self.network = recipe.network
        self.processes = processes
        self.clip_norm = config.clip_norm or float("inf")
        self.optimizer = build_optimizer(recipe, config)

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """The recipe's loss of this process's samples."""
        return self.recipe.loss(batch, step, generator)

    def update(self, loss: Tensor, rate: float) -> float:
        """One update, left out where the gradient is not finite."""
        loss.backward()
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        if torch.isfinite(norm):
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def _average_gradients(self) -> None:
        if self.processes.size == 1:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.processes.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def weights(self) -> Mapping[str, Tensor]:
        """The network's own tensors, not copies of them."""
        return self.network.state_dict()

    def save(self, folder: Path) -> None:
        """Written by the first process, since all hold the same."""
        if self.processes.first:
            state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, folder / self._FILE)

    def load(self, folder: Path) -> None:
        """Read by every process."""
        state = torch.load(folder / self._FILE, self.processes.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


class DeepSpeedEngine:
    """ZeRO: moments, gradients and parameters sharded over the processes, as `zero_stage` says.

    DeepSpeed computes in fp32 here; 16-bit arithmetic belongs to the residual blocks.
    """

    elastic = False
    _TAG = "deepspeed"

    def __init__(self, recipe: Recipe, config: TrainingConfig, processes: Processes) -> None:
        deepspeed = _import_deepspeed(processes.device)
        self.gathered = deepspeed.zero.GatheredParameters
        self.recipe = recipe
        self.processes = processes
        self.sharded = config.zero_stage == 3
        with _without_compiling():
            self.engine, *_ = deepspeed.initialize(
                model=_Objective(recipe),
                optimizer=build_optimizer(recipe, config),
                config=_deepspeed_config(config, processes.size),
                dist_init_required=False,
            )

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """The recipe's loss, through DeepSpeed's forward."""
        result: Loss = self.engine(batch, step, generator)
        return result

    def update(self, loss: Tensor, rate: float) -> float:
        """DeepSpeed's backward and step."""
        set_learning_rate(self.engine.optimizer, rate)
        self.engine.backward(loss)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def weights(self) -> Mapping[str, Tensor]:
        """The network's own tensors up to stage 2; gathered copies where they are sharded."""
        network = self.recipe.network
        if not self.sharded:
            return network.state_dict()
        with self.gathered(list(network.parameters())):
            return {name: value.clone() for name, value in network.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Every process writes its shard."""
        self.engine.save_checkpoint(str(folder), tag=self._TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Every process reads its shard."""
        path, _ = self.engine.load_checkpoint(str(folder), tag=self._TAG)
        if path is None:
            raise ValueError(f"{folder}: holds no state of DeepSpeed")


class _Objective(nn.Module):
    """The recipe's loss as a module's forward, since DeepSpeed hooks into modules."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.network = recipe.network
        self._loss = recipe.loss

    def forward(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        return self._loss(batch, step, generator)


def _deepspeed_config(config: TrainingConfig, processes: int) -> dict[str, Any]:
    return {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.batch_size // processes,
        "gradient_clipping": config.clip_norm or 0.0,
        "zero_optimization": {"stage": config.zero_stage},
        # torch's AdamW: DeepSpeed's own are compiled at the first use, for a minute and a half.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": sys.maxsize,
    }


def _import_deepspeed(device: torch.device) -> ModuleType:
    """DeepSpeed without what it would load, build or say beyond what is used here."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    with _hidden("mlflow"):
        import deepspeed
        import deepspeed.ops
    # It would be compiled now, with g++ and ninja, and serves only inference.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed calls torch by names that torch 2.14 is about to change, at every update.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    module: ModuleType = deepspeed
    return module


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make an optional import fail: the autotuner's of MLflow takes 1.2 s and is of no use here."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextmanager
def _without_compiling() -> Iterator[None]:
    """DeepSpeed imports an optimiser that calls torch.compile as it is imported (1.1 s, unused)."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCHDYNAMO_DISABLE"]
        if before is not None:
            os.environ["TORCHDYNAMO_DISABLE"] = before
