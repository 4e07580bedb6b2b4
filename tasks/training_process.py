"""Training in a process of its own: started, watched, and resumed from checkpoints after a kill.

The worker (`model_zoo.training.worker`) writes in this attempt's scratch folder and knows nothing
of us. Each checkpoint that it has completed is linked into the state folder, which only this
process writes, so that the state can be brought to a store at any time while the worker goes on.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from infra.errors import PermanentError
from infra.process import Guarded, start_guarded, tail
from infra.work import FROZEN, Work
from model_zoo.training.checkpoints import HASHES, KEEP, complete_checkpoints
from model_zoo.training.config import RunConfig, TrainingConfig
from schemas.base import Frozen
from schemas.pipeline import nearest
from schemas.stage import StageParams, operational

_POLL = 0.2  # seconds between looks at the worker
_REFUSAL = re.compile(r"^(?:\[rank\d+\]: )?(?:\w+\.)*(?:ValueError|Diverged): (.+)$", re.MULTILINE)
# Bytes of freed memory that a worker keeps, for its next update needs as much again.
_KEPT = str(2**34)
WORKER = "model_zoo.training.worker"


class NetworkChoice(StageParams):
    """Which network a stage makes.

    `config` are the fields of the network's own configuration; sizes that follow from the stage's
    inputs (`from_inputs`) are filled in by the stage and must not be declared.
    """

    network: str
    """Module of `model_zoo` that has `build_recipe`."""
    config: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    processes: int = operational(1, gt=0)
    """Processes that share each batch; one a GPU."""
    patience: float = operational(1800.0, gt=0)
    """Seconds without a sign of progress after which a training counts as hung, and is ended."""

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
            check_config(network, {**config, **_known(cls.from_inputs, network)})
        return config

    def with_sizes(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The whole configuration: as declared, and those of the sizes that the network has."""
        return {**self.config, **_known(sizes, self.network)}

    def modules(self) -> tuple[str, ...]:
        """The network, and the training system."""
        return (f"model_zoo.{self.network}", WORKER)


class TrainParams(NetworkChoice):
    """Which network a stage trains, and how."""

    training: TrainingConfig


def _known(sizes: Mapping[str, int], network: str) -> dict[str, int]:
    fields = config_model(network).model_fields
    return {name: size for name, size in sizes.items() if name in fields}


def check_config(network: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration that is not one of the network's, without building the network.

    Raises:
        ValueError: naming the key, its value and what would be right.
    """
    model = config_model(network)
    try:
        model.model_validate(dict(config))
    except ValidationError as error:
        raise ValueError(_explain(error, model)) from error


def config_model(network: str) -> type[Frozen]:
    """The configuration of a network: the one model named `…Config` that its module defines.

    Raises:
        ValueError: if there is no such module, or it is no network's.
    """
    name = f"model_zoo.{network}"
    if not network.isidentifier() or find_spec(name) is None:
        raise ValueError(f"network {network!r}: there is no module {name}")
    # Imported here, with torch behind it: who only reads a manifest does not pay for it.
    module = importlib.import_module(name)
    models = [
        one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Frozen)
    ]
    own = [one for one in models if one.__module__ == name and one.__name__.endswith("Config")]
    if not hasattr(module, "build_recipe") or len(own) != 1:
        raise ValueError(f"network {network!r}: module {name} is none of a network")
    return own[0]


def _explain(error: ValidationError, model: type[Frozen]) -> str:
    # A misspelt key shows as an unknown one and a missing one: the unknown one says more.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"{key}: unknown key; {nearest(key, model.model_fields)}"
    if first["type"] == "missing":
        return f"{key}: this key is missing"
    return f"{key}: {first['msg']} (it is {first['input']!r})" if key else first["msg"]


def train_network(
    choice: NetworkChoice, training: TrainingConfig, config: Mapping[str, Any],
    files: Sequence[Path], work: Work,
) -> Path:  # fmt: skip
    """Train a network, from the newest checkpoint if there is one; the file with its weights.

    Raises:
        PermanentError: if the worker says why it cannot train.
        ProcessFailed: if it fails otherwise; the message holds the end of its log.
        TimeoutError: if it does nothing for longer than `patience`.
    """
    folder = work.scratch / "training"
    kept = work.state / FROZEN / _folder_name(choice, training)
    run = RunConfig(
        network=choice.network, config=dict(config), files=tuple(files), training=training,
        checkpoints=folder / "checkpoints", output=folder / f"{choice.network}.safetensors",
        progress=folder / "progress.jsonl",
    )  # fmt: skip
    _take_over(kept, run.checkpoints)
    path = folder / "RUN.json"
    path.write_text(run.model_dump_json(indent=1))
    progress = Progress(run, work)
    environment = worker_environment(work.environment.cores, choice.processes)
    command = worker_command(path, choice.processes)
    with start_guarded(command, log=folder / "log.txt", env=environment) as worker:
        signs = Signs(choice.patience)
        for running in _watch(worker):
            done = complete_checkpoints(run.checkpoints)
            progress.read()  # before it is kept, so that no step before a checkpoint lacks its line
            if done and _keep(done[-1], kept) and running:
                work.save_state()
            signs.look(worker, (progress.step, done))
        _check(worker)
    return run.output


def _folder_name(choice: NetworkChoice, training: TrainingConfig) -> str:
    # DeepSpeed's checkpoints are only good for the number of processes that wrote them.
    sharded = training.engine == "deepspeed"
    return f"checkpoints-{choice.processes}" if sharded else "checkpoints"


def worker_command(run: Path, processes: int) -> list[str]:
    """How the workers of a run are started on this machine: by torchrun where there are several."""
    if processes == 1:
        return [sys.executable, "-m", WORKER, str(run)]  # spares a second start of torch, 3 s
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={processes}", "-m", WORKER, str(run)]


def worker_environment(cores: int, processes: int) -> dict[str, str]:
    """This process's environment, with the threads that each worker may use.

    Dask leaves settings for its own workers in it, which a training must not have: with MKL at one
    thread torch takes one for everything, and memory that is given back at every free is cleared
    by the kernel each time it is taken again. Both together made the demo's prior 2.5 times slower.
    """
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(max(1, cores // processes))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), _KEPT),
    }


class Signs:
    """Notices a worker that hangs: nothing about it changes any more."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._last: Any = None
        self._since = time.monotonic()

    def look(self, worker: Guarded, sign: Any) -> None:
        """Compare what is to be seen of the worker with what was seen before.

        Raises:
            TimeoutError: if it has been the same for longer than patience.
        """
        if sign != self._last:
            self._last, self._since = sign, time.monotonic()
        elif time.monotonic() - self._since > self.patience:
            raise TimeoutError(
                f"training: no sign of progress for {self.patience:.0f} s (patience); its last"
                f" words:\n{tail(worker.log)}"
            )


class Progress:
    """Passes what the worker says on to those who watch, each step of a metric once.

    A resumed run says some steps again, with the same values; those that an earlier attempt has
    passed on already are skipped.
    """

    def __init__(self, run: RunConfig, work: Work) -> None:
        self.path = run.progress
        self.total = run.training.steps
        self.work = work
        self.step = 0
        self._position = 0
        self._known = {(entry["name"], entry["step"]) for entry in work.metrics()}

    def read(self) -> None:
        """Pass on the lines that are new and whole."""
        for entry in self._lines():
            self.step = step = entry["step"]
            values = {"loss": entry["loss"], **entry["metrics"]}
            values["tokens_per_second"] = entry["tokens_per_second"]
            for name, value in values.items():
                if (name, step) not in self._known:
                    self._known.add((name, step))
                    self.work.metric(name, value, step)
            self.work.progress(step, self.total, "updates")

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._position += len(line)
                yield json.loads(line)


def _watch(worker: Guarded) -> Iterator[bool]:
    """True at each look while the worker runs, and once False when it has ended."""
    while worker.poll() is None:
        yield True
        time.sleep(_POLL)
    yield False


def _check(worker: Guarded) -> None:
    if worker.poll():
        # A wrong size or a loss that is no number will be wrong again, so it is not tried again.
        wrong = _REFUSAL.findall(tail(worker.log, 60))
        if wrong:
            raise PermanentError(f"training failed: {wrong[-1]}")
    worker.check()


def _keep(checkpoint: Path, kept: Path) -> bool:
    """Link a completed checkpoint into the state; True if it was not there yet."""
    if _is_linked(checkpoint, kept / checkpoint.name):
        return False
    try:
        _link(checkpoint, kept / checkpoint.name)
    except (FileNotFoundError, shutil.Error):
        if checkpoint.exists():
            raise
        return False  # the worker has dropped it for a newer one in the meantime
    for old in complete_checkpoints(kept)[:-KEEP]:
        shutil.rmtree(old)
    return True


def _take_over(kept: Path, live: Path) -> None:
    """Give a new worker the checkpoints of an earlier one."""
    live.mkdir(parents=True, exist_ok=True)
    for path in complete_checkpoints(kept):
        _link(path, live / path.name)


def _is_linked(path: Path, target: Path) -> bool:
    # By the file and not by the name: a damaged checkpoint was perhaps made again.
    here, there = path / HASHES, target / HASHES
    return here.exists() and there.exists() and here.samefile(there)


def _link(folder: Path, target: Path) -> None:
    """The same files under another name, all of them or none; checkpoints never change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"linking-{target.name}")
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=os.link)
    partial.rename(target)
