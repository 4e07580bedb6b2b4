"""Training in processes of its own: started, watched, and resumed from checkpoints after a kill.

What starts it, and on which machines, is declared (`infra.launch`). What runs there
(`model_zoo.training.worker`) is told everything in one file, RUN.json, and talks to no service.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from infra.errors import Fenced, PermanentError
from infra.launch.choice import LaunchChoice
from infra.launch.contract import Job, Request, build_launcher
from infra.launch.stopping import stoppable
from infra.work import FROZEN, Work
from model_zoo.training.config import TRACE, RunConfig, TrainingConfig
from tasks.network_config import check_config, known_sizes
from tasks.training_observer import Measure, Observer
from tasks.training_watch import CHECKPOINTS, PROGRESS, Notice, Watch, take_over

_POLL = 0.2  # seconds between looks at the training
_BRIEF = 2.0  # seconds of grace where its last checkpoint would not be waited for
_REFUSAL = re.compile(r"^(?:\[rank\d+\]: )?(?:\w+\.)*(?:ValueError|Diverged): (.+)$", re.MULTILINE)
WORKER = "model_zoo.training.worker"


class NetworkChoice(LaunchChoice):
    """Which network a stage makes, and what starts its training.

    `config` are the fields of the network's own configuration; sizes that follow from the stage's
    inputs (`from_inputs`) are filled in by the stage and must not be declared.
    """

    network: str
    """Module of `model_zoo` that has `build_recipe`."""
    config: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    from_inputs: ClassVar[Mapping[str, int]] = {}
    """Sizes that the stage fills in, each with a value to check the rest of `config` by."""

    @field_validator("config")
    @classmethod
    def _config_fits(cls, config: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in cls.from_inputs:
            if name in config:
                raise ValueError(f"{name}: follows from the stage's inputs; leave it out")
        if "network" in info.data:
            network = info.data["network"]
            check_config(network, {**config, **known_sizes(cls.from_inputs, network)})
        return config

    def with_sizes(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The whole configuration: as declared, and those of the sizes that the network has."""
        return {**self.config, **known_sizes(sizes, self.network)}

    def modules(self) -> tuple[str, ...]:
        """The network, and the training system."""
        return (f"model_zoo.{self.network}", WORKER)


class TrainParams(NetworkChoice):
    """Which network a stage trains, and how."""

    training: TrainingConfig


def train_network(
    choice: NetworkChoice, training: TrainingConfig, config: Mapping[str, Any],
    files: Sequence[Path], work: Work, measure: Measure | None = None,
    notice: Notice | None = None,
) -> Path:  # fmt: skip
    """Train a network, from the newest checkpoint if there is one; the file with its weights.

    A training that an earlier attempt has left running is taken up as it is.

    Args:
        measure: gives further metrics of the network as it is trained (`tasks.training_observer`).
        notice: is told every metric.

    Raises:
        PermanentError: if a rank says why it cannot train, or the training was told to stop.
        ProcessFailed: if it fails otherwise; the message holds the end of its log.
        TimeoutError: if it does nothing for longer than `patience`.
    """
    kept = work.state / FROZEN / CHECKPOINTS
    request = _request(choice, training, config, files, kept)
    shared = choice.shared and work.environment.local(choice.shared)
    choice = choice.model_copy(update={"shared": shared})
    with (
        build_launcher(choice, work.scratch, work.environment.cores, work.message) as launcher,
        stoppable() as wish,
        Observer(choice.network, config, kept, work, measure, notice) as observer,
    ):
        job = launcher.reattach(request)
        if job is not None:
            # Checkpoints and metrics that it made while nobody watched.
            Watch(job, training.steps, choice.patience, kept, work, notice).look()
        if job is None or job.poll() not in {None, 0}:
            job = launcher.submit(request)
        watch = Watch(job, training.steps, choice.patience, kept, work, notice)
        try:
            _follow(job, watch, observer, wish, choice.grace)
        except Fenced:
            raise  # it is another attempt's by now
        except BaseException:
            job.cancel(_BRIEF, final=False)
            raise
        observer.finish(job.folder / _output(choice), training.steps, wish)
    trace = job.folder / TRACE
    if trace.exists():
        work.add_side(trace, trace.name)
    return job.folder / _output(choice)


def _request(
    choice: NetworkChoice, training: TrainingConfig, config: Mapping[str, Any],
    files: Sequence[Path], kept: Path,
) -> Request:  # fmt: skip
    def prepare(folder: Path, found: Sequence[Path]) -> str:
        take_over(kept, folder / CHECKPOINTS)
        return RunConfig(
            network=choice.network, config=dict(config), files=tuple(found), training=training,
            machines=choice.machines, checkpoints=folder / CHECKPOINTS,
            output=folder / _output(choice), progress=folder / PROGRESS,
        ).model_dump_json(indent=1)  # fmt: skip

    return Request(
        module=WORKER, code=choice.modules(), versions=("torch", "deepspeed"),
        identity={"params": choice.identity(), "config": dict(config)},
        settings=training.model_dump(mode="json"), files=tuple(files), prepare=prepare,
    )  # fmt: skip


def _output(choice: NetworkChoice) -> str:
    return f"{choice.network}.safetensors"


def _follow(
    job: Job, watch: Watch, observer: Observer, wish: threading.Event, grace: float
) -> None:  # fmt: skip
    """Watch a training to its good end."""
    while (status := job.poll()) is None:
        watch.look_out()
        observer.look()
        if wish.wait(_POLL):
            job.cancel(grace, final=True)
            watch.look()
            raise PermanentError("training was told to stop; it goes on from its last checkpoint")
    watch.look()
    if status:
        # A wrong size or a loss that is no number will be wrong again, so it is not tried again.
        wrong = _REFUSAL.findall(job.words(200))
        if wrong:
            raise PermanentError(f"training failed: {wrong[-1]}")
    job.check()
