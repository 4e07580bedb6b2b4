"""DeepSpeed's engine: ZeRO 1, 2 or 3 inside each machine.

DeepSpeed computes, reduces and updates in fp32 here, and neither clips nor scales: 16-bit
arithmetic belongs to the residual blocks, and what is done to gradients is the same for all
engines. It is told that its data-parallel world is the machine. Nor does it write checkpoints:
those of `model_zoo.training.shards` are no pickles and fit any number of processes.

Where fragments and their gradients lie is read off attributes that DeepSpeed's own functions use
but do not promise; the version is pinned and the parity tests would notice.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model_zoo.training.config import TrainingConfig
from model_zoo.training.engine import Arrive, Loss, Objective
from model_zoo.training.fragments import Fragment
from model_zoo.training.optimizer import AdamW
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import Batch, Recipe


class ZeroEngine:
    """Moments, gradients, parameters sharded over a machine's processes, as `zero_stage` says."""

    sharded = True
    overlaps = False

    def __init__(
        self, recipe: Recipe, config: TrainingConfig, processes: Processes, passes: int,
        optimizer: AdamW,
    ) -> None:  # fmt: skip
        deepspeed = _import_deepspeed(processes.device)
        self.network = recipe.network
        self.processes = processes
        self.optimizer = optimizer
        self.stage = config.zero_stage
        if self.stage < 3:  # otherwise it need not fit into one device as a whole
            recipe.network.to(processes.device)
        with _without_compiling(), _quiet(deepspeed):
            self.engine, *_ = deepspeed.initialize(
                model=Objective(recipe),
                optimizer=optimizer,
                mpu=_Machine(processes),
                config=_deepspeed_config(config, processes, passes, recipe.network),
                dist_init_required=False,
            )
        self.zero = self.engine.optimizer
        parameters = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        if self.stage == 3:
            self._held = [(p, self._third(n, p)) for n, p in parameters]
        else:
            self._held = [(p, _first_or_second(n, p, self.zero)) for n, p in parameters
                          if p._hp_mapping is not None]  # type: ignore[attr-defined]  # fmt: skip
        self._held = [(p, fragment) for p, fragment in self._held if fragment.numel]
        self.fragments = [fragment for _, fragment in self._held]

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Loss:
        """The recipe's loss, through DeepSpeed's forward."""
        result: Loss = self.engine(batch, step, generator)
        return result

    def backward(self, loss: Tensor) -> None:
        """One pass of several; DeepSpeed divides by their number, and its step only counts."""
        self.engine.backward(loss)
        self.engine.step()

    def last_backward(self, loss: Tensor, arrive: Arrive) -> list[Tensor]:
        """DeepSpeed's backward, which leaves averaged gradients with those who update."""
        self.engine.backward(loss)
        return [self._gradient(p, fragment) for p, fragment in self._held]

    def step(self) -> None:
        """DeepSpeed's step, with our optimiser."""
        self.engine.step()

    @torch.no_grad()
    def publish(self) -> None:
        """Copy and gather the homes' weights, as a step does in its end."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        for number in range(len(self.zero.fp16_groups)):
            self.zero._reassign_or_swap_out_partitioned_parameters(number)
        persistent = self.zero.persistent_parameters
        for parameter in persistent:
            parameter.partition(has_been_updated=False)
        if persistent:
            persistent[0].all_gather(persistent)

    def _third(self, name: str, parameter: Any) -> Fragment:
        """Under ZeRO 3 each has an equal run of every parameter, the last one padded."""
        group, offset, length = self.zero.grad_position[self.zero.get_param_id(parameter)]
        start = self.processes.place * length
        numel = max(0, min(length, parameter.ds_numel - start))
        home = self.zero.fp32_partitioned_groups_flat[group]
        return Fragment(name, tuple(parameter.ds_shape), start, home, offset, numel)

    def _gradient(self, parameter: Any, fragment: Fragment) -> Tensor:
        if fragment.home.grad is not None:  # offloaded: DeepSpeed has it beside the home
            return fragment.of(fragment.home.grad)
        if self.stage == 3:
            group, _, _ = self.zero.grad_position[self.zero.get_param_id(parameter)]
            place = next(
                i for i, one in enumerate(self.zero.fp16_groups[group]) if one is parameter
            )
            gradient = self.zero.averaged_gradients[group][place]
            return gradient.view(-1).narrow(0, 0, fragment.numel)
        mapping = parameter._hp_mapping
        gradient = mapping.get_lp_grad_fragment(parameter._index_in_param_group).view(-1)
        assert gradient.numel() == fragment.numel
        return gradient


def _first_or_second(name: str, parameter: Any, zero: Any) -> Fragment:
    """Under ZeRO 1 and 2 each has an equal run of all parameters of a group, end to end."""
    mapping = parameter._hp_mapping
    home = zero.single_partition_of_fp32_groups[mapping.param_group_index]
    here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
    return Fragment(name, tuple(parameter.shape), there.start, home, here.start, here.numel)


class _Machine:
    """Tells DeepSpeed, in the words of its `mpu`, that its data-parallel world is one machine."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self.processes.machine_group

    def get_data_parallel_world_size(self) -> int:
        return self.processes.per_machine

    def get_data_parallel_rank(self) -> int:
        return self.processes.place

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self.processes.alone

    def get_model_parallel_world_size(self) -> int:
        return 1

    def get_model_parallel_rank(self) -> int:
        return 0

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_world_size = get_model_parallel_world_size
    get_tensor_model_parallel_rank = get_model_parallel_rank


def _deepspeed_config(
    config: TrainingConfig, processes: Processes, passes: int, network: nn.Module
) -> dict[str, Any]:
    share = config.batch_size // processes.size
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.zero_stage == 3:
        # Gains and biases stay gathered: what they take is little, a message for each is not.
        small = max((p.numel() for p in network.parameters() if p.ndim < 2), default=0)
        zero["stage3_param_persistence_threshold"] = small + 1
    if config.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    return {
        "train_batch_size": share * processes.per_machine,
        "train_micro_batch_size_per_gpu": share // passes,
        "gradient_accumulation_steps": passes,
        "zero_optimization": zero,
        "gradient_clipping": 0.0,  # 1 unless told; what is declared is done outside
        # Ours: DeepSpeed's own are compiled at the first use, for a minute and a half.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": sys.maxsize,
    }


def _import_deepspeed(device: torch.device) -> ModuleType:
    """DeepSpeed without what it would load, build or say beyond what is used here."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        with _hidden("mlflow"):
            import deepspeed
            import deepspeed.ops
    except ImportError as error:
        raise ValueError(
            f"engine: deepspeed cannot be imported here ({error}); install it as the lock file"
            " says, or declare `engine: fsdp`"
        ) from error
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
def _quiet(deepspeed: ModuleType) -> Iterator[None]:
    """DeepSpeed warns that it does not know our optimiser, which our tests do."""
    logger = deepspeed.utils.logger
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


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
