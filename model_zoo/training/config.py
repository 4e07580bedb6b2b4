"""How a network is trained, and the one file (RUN.json) that a training process is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from schemas.base import Frozen
from schemas.stage import operational


class TrainingConfig(Frozen):
    """Everything about a training that does not depend on which network it is.

    `batch_size` is the whole batch of an update, over all processes. `learning_rate` rises linearly
    over `warmup` updates, then stays or falls along a cosine to `final_learning_rate`.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of weights, which is then what is saved; none without it."""
    ema_every: int = Field(default=1, gt=0)
    """Updates from one averaging to the next (the paper: 25 for the transformer)."""
    seed: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[1, 2, 3] = 2
    """What DeepSpeed shards: 1 moments, 2 gradients too, 3 parameters too. No use to `torch`."""
    checkpoint_every: int = operational(100, gt=0)
    log_every: int = operational(10, gt=0)

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup: {self.warmup} updates, but only {self.steps} in all")
        if self.schedule == "constant" and self.final_learning_rate:
            raise ValueError("final_learning_rate: has no meaning with schedule `constant`")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate: {self.final_learning_rate} is above"
                f" learning_rate {self.learning_rate}"
            )
        return self


class RunConfig(Frozen):
    """RUN.json: all that a training process is told."""

    network: str
    """Module of `model_zoo` that has `build_recipe`."""
    config: dict[str, Any]
    files: tuple[Path, ...] = Field(min_length=1)
    training: TrainingConfig
    checkpoints: Path
    """Folder of checkpoints; the run resumes from the newest sound one in it."""
    output: Path
    """Where the trained network goes (safetensors), the last thing that is written."""
    progress: Path
    """JSON lines: `step`, `loss`, `metrics`, `tokens_per_second`, `time`."""
