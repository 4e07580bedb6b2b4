"""The loop: updates from where a checkpoint left off to the last, checkpoints on the way.

Every random draw is a function of (seed, step, process), so that a checkpoint holds no random state
and the losses of an interrupted training equal those of an uninterrupted one, on a CPU bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_zoo.training import checkpoints
from model_zoo.training.config import PlateauConfig, RunConfig, TrainingConfig
from model_zoo.training.ema import Average
from model_zoo.training.engine import Engine, count_passes
from model_zoo.training.fragments import Blocks
from model_zoo.training.order import Order
from model_zoo.training.processes import Processes
from model_zoo.training.progress import Progress
from model_zoo.training.recipe import Batch, Recipe
from model_zoo.training.saving import Keeper
from model_zoo.training.schedules import Plateau, learning_rate
from model_zoo.training.tracing import Tracer
from model_zoo.training.update import Updated, Updater
from model_zoo.training.watch import (
    Watch,
    counting_flops,
    find_unsound,
    matrix_rate,
    name_samples,
    name_unsound,
)
from model_zoo.training.writer import Writer


class Diverged(ArithmeticError):
    """Loss or gradient is no longer a number; checkpoints hold the state before."""


@dataclass
class Training:
    """A training between two updates."""

    run: RunConfig
    processes: Processes
    recipe: Recipe
    engine: Engine
    order: Order
    blocks: Blocks
    step: int = 0
    stopping: bool = False
    """Set by a signal: leave after this update, with a checkpoint."""
    watch: Watch = field(init=False, default_factory=Watch)

    def __post_init__(self) -> None:
        config = self.run.training
        self.updater = Updater(
            self.engine, self.blocks, self.recipe.network, config, self.processes
        )
        self.keeper = Keeper(
            self.engine, self.processes, self.blocks, self.updater.exchange, None, config.sum_errors
        )
        if config.ema is not None and self.keeper.writes:
            self.keeper.average = Average(self.engine.fragments, config.ema)
        self.passes = count_passes(config, self.processes)
        self.writer = Writer(self.run.checkpoints, self.processes, config.keep, config.keep_best)
        plateaus = config.schedule == "plateau"
        self.plateau = Plateau(config.plateau or PlateauConfig()) if plateaus else None
        self._loader = ThreadPoolExecutor(1)
        self._next: Future[Batch] | None = None

    def train(self) -> bool:
        """Do what is left; whether it was done to the end, and not stopped before.

        Raises:
            Diverged: naming the update, the block and the samples.
        """
        config = self.run.training
        progress = None
        self.watch.peak = matrix_rate(self.processes.device, config.precision)
        if self.processes.first:
            tokens = self.recipe.tokens * config.batch_size
            progress = Progress(self.run.progress, self.step, tokens)
        with Tracer(self.run, self.processes) as tracer:
            while self.step < config.steps:
                loss, metrics, updated, stopping = self._update()
                if progress and self._is_logged(self.step):
                    watched = self.watch.metrics(
                        updated, self.updater.scales, self.processes.machines
                    )
                    progress.write(self.step, loss, {**metrics, **watched})
                if stopping or self.step % config.checkpoint_every == 0:
                    self.writer.start(self.step, self.keeper.files(), self._state(loss))
                if stopping:
                    break
                tracer.step()
        self.writer.settle()
        return self.step == config.steps

    def _update(self) -> tuple[float, dict[str, float], Updated, bool]:
        """One update: its loss and metrics (means over processes), and whether to stop."""
        self.updater.observe(self._is_logged(self.step + 1))
        batch, waited = self._batch()
        loss, metrics = self._backward(batch)
        mean, stopping, means = self._agree(loss, metrics)
        if not math.isfinite(mean):
            found = find_unsound(
                self.recipe.network, lambda: self._loss(batch, self._generator()), self.processes
            )
            raise self._diverged(f"the loss is {mean}", found)
        rate = learning_rate(self.run.training, self.step)
        if self.plateau is not None:
            rate *= self.plateau.factor
            self.plateau.look(mean)
        updated = self.updater.update(rate)
        if not math.isfinite(updated.norm):
            raise self._diverged(f"the gradient is {updated.norm}", name_unsound(updated.norms))
        self.step += 1
        self.watch.count(waited, updated)
        if self.keeper.average is not None and self.step % self.run.training.ema_every == 0:
            self.keeper.average.update()
        means |= {"learning_rate": rate, "gradient_norm": updated.norm}
        return mean, means, updated, stopping

    def _is_logged(self, step: int) -> bool:
        return step % self.run.training.log_every == 0 or step == self.run.training.steps

    def _batch(self) -> tuple[Batch, float]:
        """This update's batch, and the seconds that were waited for it.

        Beside a GPU the next one is under way then; on a CPU it would take a core from the
        network, whose threads wait for each other (1.6 to 1.8 x the time of an update, two cores).
        """
        start = time.perf_counter()
        batch = self._next.result() if self._next else self.order.batch(self.step)
        ahead = self.processes.device.type != "cpu" and self.step + 1 < self.run.training.steps
        self._next = self._loader.submit(self.order.batch, self.step + 1) if ahead else None
        on_device = {key: value.to(self.processes.device) for key, value in batch.items()}
        return on_device, time.perf_counter() - start

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """All passes of an update: the means of their losses and metrics."""
        generator, sums = self._generator(), dict[str, torch.Tensor]()
        parts = {key: value.chunk(self.passes) for key, value in batch.items()}
        for number in range(self.passes):
            part = {key: chunks[number] for key, chunks in parts.items()}
            loss, metrics = self._loss(part, generator)
            for name, value in {"": loss.detach(), **metrics}.items():
                sums[name] = sums[name] + value / self.passes if number else value / self.passes
            self.updater.backward(loss, last=number == self.passes - 1)
        return sums.pop(""), sums

    def _loss(self, batch: Batch, generator: torch.Generator) -> tuple[torch.Tensor, Batch]:
        if self.watch.flops or not self.processes.first:
            return self.engine.loss(batch, self.step, generator)
        with counting_flops(self.watch, self.passes):
            return self.engine.loss(batch, self.step, generator)

    def _agree(self, loss: torch.Tensor, metrics: Batch) -> tuple[float, bool, dict[str, float]]:
        values: list[torch.Tensor | float] = [
            loss.detach(),
            float(self.stopping),
            float(self.writer.done),
            *metrics.values(),
        ]
        mean, stopping, written, *means = self.processes.mean(values)
        if written == 1:
            self.writer.publish()
        return mean, stopping > 0, dict(zip(metrics, means, strict=True))

    def _generator(self) -> torch.Generator:
        """The source of this update's random numbers; torch's global one is set as well."""
        entropy = [self.run.training.seed, self.step, self.processes.rank]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
        torch.manual_seed(seed)
        return torch.Generator(self.processes.device).manual_seed(seed)

    def _diverged(self, what: str, where: str) -> Diverged:
        self.writer.settle()
        samples = name_samples(self.order.dataset, self.order.parts(self.step))
        return Diverged(
            f"update {self.step + 1}: {what}; {where}; the batch had {samples}; try a lower"
            " learning_rate, a longer warmup or a clip_norm"
        )

    def resume(self) -> None:
        """Continue from the newest sound checkpoint, if there is one.

        Raises:
            ValueError: if it is of another training, naming the field that differs.
        """
        found = checkpoints.newest(self.run.checkpoints) if self.processes.first else None
        step = self.processes.from_first(checkpoints.step_of(found) if found else 0)
        if not step:
            return
        folder = checkpoints.finished(self.run.checkpoints, step)
        state = checkpoints.read_state(folder)
        self._check_identity(folder, state)
        self.keeper.load(folder, step, state["machines"])
        if self.updater.scales is not None:
            self.updater.scales.restore(state["scales"])
        if self.plateau is not None:
            self.plateau.restore(state["plateau"])
        self.watch.skipped.update(state["skipped"])
        self.step = step

    def _state(self, loss: float) -> dict[str, Any]:
        """What a checkpoint holds besides tensors."""
        return {
            "identity": self._identity(),
            "loss": loss,
            "machines": self.processes.machines,
            "processes": self.processes.size,
            "scales": self.updater.scales.state() if self.updater.scales else None,
            "plateau": self.plateau.state() if self.plateau else None,
            "skipped": dict(self.watch.skipped),
        }

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that resumes from it."""
        training = {
            name: value
            for name, value in self.run.training.model_dump(mode="json").items()
            if name not in _OPERATIONAL
        }
        same = {"network": self.run.network, "config": self.run.config, **training}
        same["samples"] = len(self.order.dataset)
        identity: dict[str, Any] = json.loads(json.dumps(same))
        return identity

    def _check_identity(self, folder: Path, state: dict[str, Any]) -> None:
        then, now = state["identity"], self._identity()
        for key in now:
            if then.get(key) != now[key]:
                raise ValueError(
                    f"{key}: {now[key]}, but the checkpoint {folder} was made with"
                    f" {then.get(key)}; give the run another folder of checkpoints"
                )


_OPERATIONAL = {
    name
    for name, info in TrainingConfig.model_fields.items()
    if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("operational")
}
