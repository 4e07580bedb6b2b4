"""Several trainings one after the other in the same processes, each as the worker would do it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from model_zoo.training.config import RunConfig
from model_zoo.training.loop import Training
from model_zoo.training.processes import Processes
from model_zoo.training.worker import prepare, write_network
from tests.model_zoo.training.ranks import Ranks

_RUN, _AFTER = "RUN.json", "after.json"
_SIZES = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 16, "grid_height": 4,
    "grid_width": 4, "width": 32, "heads": 2, "layers": 2, "conv_kernel": 3,
}  # fmt: skip
_TRAINING: dict[str, Any] = {
    "steps": 100, "batch_size": 8, "learning_rate": 3e-3, "warmup": 10, "clip_norm": 2.0,
    "weight_decay": 0.05, "betas": (0.9, 0.96), "variance_clip": 5.0, "ema": 0.9, "ema_every": 5,
    "seed": 3, "checkpoint_every": 50, "log_every": 1, "engine": "deepspeed",
}  # fmt: skip


def write_noisy_pairs(path: Path, pairs: int = 2000) -> Path:
    """Codes that follow from the caption four times in five, so that the loss ends above zero."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 20, (pairs, 4), generator=draw)
    place = torch.arange(16)
    codes = (tokens[:, place % 4] + place) % 16
    noise = torch.rand(codes.shape, generator=draw) < 0.2
    codes = torch.where(noise, torch.randint(0, 16, codes.shape, generator=draw), codes)
    shaped = codes.view(-1, 1, 4, 4).to(torch.int32)
    save_file({"tokens": tokens.to(torch.int32), "codes": shaped}, path)
    return path


class Network(NamedTuple):
    """What a case trains, and on what."""

    name: str
    config: Mapping[str, Any]
    file: Path


class Case:
    """One training among several that are run in the same processes."""

    def __init__(
        self, folder: Path, name: str, machines: int = 1, sizes: Mapping[str, int] | None = None,
        network: Network | None = None, **training: Any,
    ) -> None:  # fmt: skip
        self.name, self.machines = name, machines
        self.folder = folder / name
        self.folder.mkdir()
        self.path = self.folder / _RUN
        self.checkpoints = self.folder / "checkpoints"
        self.output = self.folder / "prior.safetensors"
        self.progress = self.folder / "progress.jsonl"
        if network is None:
            pairs = folder / "codes.safetensors"
            if not pairs.exists():
                write_noisy_pairs(pairs)
            network = Network("dalle", {**_SIZES, **(sizes or {})}, pairs)
        run = {
            "network": network.name, "config": network.config, "files": [network.file],
            "machines": machines,
            "training": {**_TRAINING, **training}, "checkpoints": self.checkpoints,
            "output": self.output, "progress": self.progress,
        }  # fmt: skip
        self.path.write_text(json.dumps(run, default=str))

    def losses(self) -> np.ndarray:
        """The loss of every update."""
        return np.array([line["loss"] for line in self.lines()])

    def lines(self) -> list[dict[str, Any]]:
        """What was said of every update, as far as lines are whole."""
        lines = self.progress.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def metric(self, name: str) -> float:
        """The last value of a metric."""
        value: float = self.lines()[-1]["metrics"][name]
        return value

    def resumes(self, other: Case, step: int) -> Case:
        """Have it continue from another's checkpoint of a step, made by the time that it starts."""
        (self.folder / _AFTER).write_text(json.dumps([str(other.folder), step]))
        return self


def run_cases(cases: Sequence[Case], processes: int, timeout: float = 300) -> None:
    """Run them one after the other on so many processes, and check that all machines end alike."""
    folders = [case.folder for case in cases]
    ranks = Ranks(processes, _run, cases[0].machines, folders, log=folders[0] / "log.txt")
    assert ranks.wait(timeout) == 0, ranks.said()


def _run(machines: int, folders: Sequence[Path]) -> None:
    with Processes(machines) as processes:
        for folder in folders:
            run = RunConfig.model_validate_json((folder / _RUN).read_text())
            if processes.first and (folder / _AFTER).exists():
                _take_over(run, *json.loads((folder / _AFTER).read_text()))
            processes.wait()
            training = prepare(run, processes)
            training.resume()
            training.train()
            _check_same(training)
            write_network(training)


def _take_over(run: RunConfig, other: str, step: int) -> None:
    name = f"step-{step:07d}"
    before = RunConfig.model_validate_json((Path(other) / _RUN).read_text())
    shutil.copytree(before.checkpoints / name, run.checkpoints / name)
    lines = before.progress.read_text().splitlines(keepends=True)
    run.progress.write_text("".join(lines[:step]))


def _check_same(training: Training) -> None:
    """Counterparts on all machines hold the same weights, bit for bit."""
    group = training.processes.counterparts
    if group is None:
        return
    for fragment in training.engine.fragments:
        found = [torch.empty_like(fragment.weight) for _ in range(training.processes.machines)]
        dist.all_gather(found, fragment.weight.clone(), group=group)
        assert all(torch.equal(one, found[0]) for one in found), fragment.name
