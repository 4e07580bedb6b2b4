"""The loop: updates from where a checkpoint left off to the last, checkpoints on the way.

Every random draw is a function of (seed, step, process), so that a checkpoint holds no random state
and the losses of an interrupted training equal those of an uninterrupted one, on a CPU bit for bit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_zoo.training import checkpoints
from model_zoo.training.config import RunConfig
from model_zoo.training.ema import Average
from model_zoo.training.engine import Engine
from model_zoo.training.order import Order
from model_zoo.training.processes import Processes
from model_zoo.training.progress import Progress
from model_zoo.training.recipe import Batch
from model_zoo.training.schedules import learning_rate

_STATE, _AVERAGE = "state.json", "average.safetensors"


class Diverged(ArithmeticError):
    """Loss or gradient is no longer a number; checkpoints hold the state before."""


@dataclass
class Training:
    """A training between two updates."""

    run: RunConfig
    processes: Processes
    engine: Engine
    order: Order
    tokens: int
    step: int = 0
    stopping: bool = False
    """Set by a signal: leave after this update, with a checkpoint."""
    average: Average | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        weights = self.engine.weights()
        if self.run.training.ema is not None and self.processes.first:
            self.average = Average(weights, self.run.training.ema)

    def train(self) -> bool:
        """Do what is left; whether it was done to the end, and not stopped before.

        Raises:
            Diverged: naming the update.
        """
        config = self.run.training
        progress = None
        if self.processes.first:
            tokens = self.tokens * config.batch_size
            progress = Progress(self.run.progress, self.step, tokens)
        while self.step < config.steps:
            loss, metrics, stopping = self._update()
            if progress and (self.step % config.log_every == 0 or self.step == config.steps):
                progress.write(self.step, loss, metrics)
            if stopping or self.step % config.checkpoint_every == 0:
                self.save()
            if stopping:
                return self.step == config.steps
        return True

    def _update(self) -> tuple[float, dict[str, float], bool]:
        """One update: its loss and metrics (means over processes), and whether to stop."""
        config = self.run.training
        batch = {k: v.to(self.processes.device) for k, v in self.order.batch(self.step).items()}
        loss, metrics = self.engine.loss(batch, self.step, self._generator())
        mean, stopping, means = self._agree(loss, metrics)
        if not math.isfinite(mean):
            raise Diverged(f"update {self.step + 1}: the loss is {mean}{self._advice()}")
        rate = learning_rate(config, self.step)
        norm = self.engine.update(loss, rate)
        if not math.isfinite(norm):
            raise Diverged(f"update {self.step + 1}: the gradient is {norm}{self._advice()}")
        self.step += 1
        if self.run.training.ema is not None and self.step % config.ema_every == 0:
            weights = self.engine.weights()
            if self.average is not None:
                self.average.update(weights)
        return mean, {**means, "learning_rate": rate, "gradient_norm": norm}, stopping

    def _agree(self, loss: torch.Tensor, metrics: Batch) -> tuple[float, bool, dict[str, float]]:
        values: list[torch.Tensor | float] = [
            loss.detach(),
            float(self.stopping),
            *metrics.values(),
        ]
        mean, stopping, *means = self.processes.mean(values)
        return mean, stopping > 0, dict(zip(metrics, means, strict=True))

    def _generator(self) -> torch.Generator:
        """The source of this update's random numbers; torch's global one is set as well."""
        entropy = [self.run.training.seed, self.step, self.processes.rank]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
        torch.manual_seed(seed)
        return torch.Generator(self.processes.device).manual_seed(seed)

    def _advice(self) -> str:
        return "; try a lower learning_rate, a longer warmup or a clip_norm"

    def save(self) -> None:
        """Write a checkpoint of this step; all processes together."""
        folder = self.run.checkpoints
        if self.processes.first:
            checkpoints.begin(folder, self.step)
        self.processes.wait()
        written = checkpoints.unfinished(folder, self.step)
        self.engine.save(written)
        self.processes.wait()
        if self.processes.first:
            if self.average is not None:
                self.average.save(written / _AVERAGE)
            (written / _STATE).write_text(json.dumps(self._identity()))
            checkpoints.publish(folder, self.step)
        self.processes.wait()

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
        self._check_identity(folder)
        self.engine.load(folder)
        if self.average is not None:
            self.average.load(folder / _AVERAGE)
        self.step = step

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that resumes from it."""
        training = self.run.training.model_dump(mode="json")
        for operational in ("checkpoint_every", "log_every"):
            del training[operational]
        same = {"network": self.run.network, "config": self.run.config, **training}
        same["samples"] = len(self.order.dataset)
        if not self.engine.elastic:
            same["processes"] = self.processes.size
        return same

    def _check_identity(self, folder: Path) -> None:
        then, now = json.loads((folder / _STATE).read_text()), self._identity()
        now = json.loads(json.dumps(now))
        for key in now:
            if then.get(key) != now[key]:
                raise ValueError(
                    f"{key}: {now[key]}, but the checkpoint {folder} was made with"
                    f" {then.get(key)}; give the run another folder of checkpoints"
                )
