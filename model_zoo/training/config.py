"""How a network is trained, and the one file (RUN.json) that a training process is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from model_zoo.training.checkpoints import KEEP
from schemas.base import Frozen
from schemas.stage import operational

Precision = Literal["fp32", "bf16", "fp16"]
TRACE = "trace.json.gz"
"""What the trace of `profile` is called; it lies beside the progress."""


class CompressionConfig(Frozen):
    """How gradients are compressed between machines; give `rank`, or the `saving` that it is for.

    Attributes:
        rank: of a whole matrix, as the paper counts (896 at width 3968).
        saving: share of the matrices' bytes that is not sent; the largest rank that reaches it.
        warm_start: begin each update with the last one's factor. Closer at the same rank in our
            small runs (docs/training.md); the paper drew Q once and found that enough.
        wire: type of the factors while they travel. In fp16 they are scaled by powers of two that
            the machines agree on, so that neither end of its range is met.
    """

    rank: int | None = Field(default=None, gt=0)
    saving: float | None = Field(default=None, gt=0, lt=1)
    warm_start: bool = False
    wire: Precision = "fp32"

    @model_validator(mode="after")
    def _check(self) -> CompressionConfig:
        if (self.rank is None) == (self.saving is None):
            raise ValueError("rank, saving: give one of the two")
        return self


class PlateauConfig(Frozen):
    """When the learning rate is halved (DALL-E, appendix B: at each plateau, five times).

    The training loss is smoothed over about `window` updates; where it has not fallen by `least`
    of itself for `patience` updates, the rate is halved, `halvings` times at most. The paper does
    not say how it told a plateau; this is our choice.
    """

    patience: int = Field(default=5000, gt=0)
    window: int = Field(default=500, gt=0)
    least: float = Field(default=1e-3, ge=0, lt=1)
    halvings: int = Field(default=5, gt=0)


class TrainingConfig(Frozen):
    """Everything about a training that does not depend on which network it is.

    `batch_size` is the whole batch of an update, over all processes. `learning_rate` rises linearly
    over `warmup` updates, then stays, falls along a cosine to `final_learning_rate`, or is halved
    at plateaus of the loss.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    plateau: PlateauConfig | None = None
    """How `schedule: plateau` tells one; its defaults are those of `PlateauConfig`."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient, measured after it was exchanged between machines."""
    variance_clip: float | None = Field(default=None, gt=0)
    """Largest value of the second moment's estimate (the paper: 5)."""
    moments: Literal["fp32", "bf16", "int8"] = "fp32"
    """How the optimiser's moments are stored (`model_zoo.training.moments`)."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of weights, which is then what is saved; none without it."""
    ema_every: int = Field(default=1, gt=0)
    """Updates from one averaging to the next (the paper: 25 for the transformer)."""
    seed: int = Field(default=0, ge=0)
    precision: Precision = "fp32"
    """Arithmetic inside residual blocks; fp16 has a gradient scale for each of them."""
    compression: CompressionConfig | None = None
    """Of gradients between machines; none without it. One machine never compresses."""
    engine: Literal["deepspeed", "fsdp", "torch"] = operational("deepspeed")
    zero_stage: Literal[1, 2, 3] = operational(2)
    """What DeepSpeed shards: 1 moments, 2 gradients too, 3 parameters too; others ignore it."""
    micro_batch: int | None = operational(None, gt=0)
    """Samples that a process takes through the network at a time; the gradients of as many passes
    as make up its share of the batch are added. All at once without it."""
    recompute: bool = operational(False)
    """Keep each residual block's input only, and compute the rest again in the backward pass."""
    offload: bool = operational(False)
    """Keep optimiser and fp32 weights in the memory of the CPU (`deepspeed` only, not with fp16;
    nor with a GPU yet, see `model_zoo.training.engine`)."""
    checkpoint_every: int = operational(100, gt=0)
    keep: int = operational(KEEP, gt=0)
    """Newest checkpoints that are kept."""
    keep_best: int = operational(0, ge=0)
    """Checkpoints with the lowest loss that are kept besides."""
    sum_errors: bool = operational(False)
    """Keep the error buffers of compression summed over the machines, as the paper does: as many
    times smaller as there are machines, but then no resume is exact."""
    log_every: int = operational(10, gt=0)
    profile: int = operational(0, ge=0)
    """Updates to trace with torch's profiler, after the first five."""

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup: {self.warmup} updates, but only {self.steps} in all")
        if self.schedule != "cosine" and self.final_learning_rate:
            raise ValueError(f"final_learning_rate: has no meaning with schedule `{self.schedule}`")
        if self.plateau is not None and self.schedule != "plateau":
            raise ValueError("plateau: has a meaning with `schedule: plateau` only")
        if self.offload and self.engine != "deepspeed":
            raise ValueError(f"offload: engine `{self.engine}` has none; leave it out")
        if self.offload and self.precision == "fp16":
            # Of gradients that still have their scales, and on each machine by itself.
            raise ValueError(
                "offload: DeepSpeed then looks for overflows itself and leaves out whole updates"
                " where only blocks are to be left out; declare `precision: bf16`, or no offload"
            )
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
    machines: int = Field(default=1, gt=0)
    """On which the processes run, the same number on each."""
    checkpoints: Path
    """Folder of checkpoints; the run resumes from the newest sound one in it."""
    output: Path
    """Where the trained network goes (safetensors), the last thing that is written."""
    progress: Path
    """JSON lines: `step`, `loss`, `metrics`, `tokens_per_second`, `time`."""
