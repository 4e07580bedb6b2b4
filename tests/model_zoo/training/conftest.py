"""A tiny run of the prior, and the worker as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_zoo.training import worker
from model_zoo.training.config import RunConfig
from model_zoo.training.processes import Processes
from tests.model_zoo.training.ranks import ROOT, Ranks
from tests.small_disk import small_disk

SIZES = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 8, "grid_height": 3,
    "grid_width": 3, "width": 16, "heads": 2, "layers": 2, "conv_kernel": 3,
}  # fmt: skip
TRAINING = {
    "steps": 12, "batch_size": 4, "learning_rate": 1e-2, "warmup": 2, "clip_norm": 1.0,
    "weight_decay": 0.1, "ema": 0.5, "ema_every": 2, "seed": 3, "checkpoint_every": 4,
    "log_every": 1,
}  # fmt: skip


def write_pairs(path: Path, pairs: int = 10) -> Path:
    """Pairs of random tokens and codes, two crops each."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 20, (pairs, 4), generator=draw, dtype=torch.int32)
    tokens[::2, 2:] = -1
    codes = torch.randint(0, 8, (pairs, 2, 3, 3), generator=draw, dtype=torch.int32)
    save_file({"tokens": tokens, "codes": codes}, path)
    return path


class Run:
    """A run of the worker in a folder of its own; of one that has ended, what it said."""

    said: str

    def __init__(self, folder: Path, **training: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.output = folder / "prior.safetensors"
        self.progress = folder / "progress.jsonl"
        self.path = folder / "RUN.json"
        run = {
            "network": "dalle", "config": SIZES,
            "files": [write_pairs(folder / "codes.safetensors")],
            "training": {**TRAINING, **training}, "checkpoints": self.checkpoints,
            "output": self.output, "progress": self.progress,
        }  # fmt: skip
        self.path.write_text(json.dumps(run, default=str))

    def start(self) -> "subprocess.Popen[str]":
        """Run as the launchers have it."""
        return subprocess.Popen(
            [sys.executable, "-m", "model_zoo.training.worker", str(self.path)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def ranks(self, processes: int) -> Ranks:
        """Run in processes that start faster."""
        return Ranks(processes, worker.main, [str(self.path)], log=self.folder / "log.txt")

    def finish(self) -> str:
        """Run to the end, which must be a good one; what was said."""
        ranks = self.ranks(1)
        assert ranks.wait() == 0, ranks.said()
        return ranks.said()

    def train_here(self) -> int:
        """Run in this process, whatever comes of it: the exit status. Not for DeepSpeed, which
        keeps a state of its own."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as `start` has it: the order of sums depends on it
        try:
            return worker.train(RunConfig.model_validate_json(self.path.read_text()))
        finally:
            torch.set_num_threads(threads)

    def losses(self) -> dict[int, float]:
        """Loss by update."""
        lines = map(json.loads, self.progress.read_text().splitlines())
        return {line["step"]: line["loss"] for line in lines}


@pytest.fixture(scope="session")
def deepspeed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted, by DeepSpeed in one process."""
    run = Run(tmp_path_factory.mktemp("whole"))
    with run.start() as process:
        run.said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, run.said
    return run


@pytest.fixture
def megabyte(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        yield folder


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """The only process."""
    with Processes() as alone:
        yield alone
