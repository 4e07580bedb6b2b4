"""A training on two machines, by the stages' own code: to its end, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.work import Work
from model_zoo.weights import read_header
from tasks.training_process import WORKER
from tests.tasks.attempt import train
from tests.two_machines import Machine, TwoMachines, two_machines, why_not

ROOT = Path(__file__).parents[2]
REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"two machines: {REASON}")
SLOW = {"checkpoint_every": 5, "steps": 60, "log_every": 1}


class Cluster:
    """Two machines with a shared folder, and a home for the pipeline on machine 0."""

    def __init__(self, machines: TwoMachines, folder: Path) -> None:
        self.machines = machines
        self.folder = folder
        self.shared, self.home = folder / "shared", folder / "home"
        self.shared.mkdir()
        self.home.mkdir()

    def pipeline(self, **training: Any) -> subprocess.Popen[Any]:
        """Start a pipeline on machine 0."""
        params = {
            "launcher": "rendezvous", "machines": 2, "address": f"{self.machines.address}:29500",
            "shared": str(self.shared), "patience": 100, "lifetime": 6, "outlive": 60,
            "training": training,
        }  # fmt: skip
        arguments = ["tests.tasks.attempt", str(self.home), json.dumps(params)]
        return self._start(self.machines.first, "pipeline", *arguments)

    def join(self) -> subprocess.Popen[Any]:
        """Have machine 1 join."""
        arguments = ["flows.cli", "join", str(self.shared), "--machine", "1"]
        return self._start(self.machines.second, "join", *arguments)

    def _start(self, machine: Machine, log: str, *arguments: str) -> subprocess.Popen[Any]:
        with (self.folder / f"{log}.log").open("ab") as output:
            command = [sys.executable, "-m", *arguments]
            return machine.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def events(self) -> list[dict[str, Any]]:
        """What the pipelines have said."""
        path = self.home / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def steps(self) -> list[int]:
        """Updates that were reported, in the order in which they were."""
        return [event["done"] for event in self.events() if event["event"] == "progress"]

    def submitted(self) -> int:
        """Runs that pipelines have started."""
        return len(list(self.shared.glob("submissions/*")))

    def ranks(self, machine: Machine) -> list[psutil.Process]:
        """The ranks that run on a machine."""
        found = []
        for pid in machine.processes():
            try:
                process = psutil.Process(pid)
                command = process.cmdline()
            except psutil.NoSuchProcess:
                continue
            if command[1:3] == ["-m", WORKER] or command[1:4] == ["-u", "-m", WORKER]:
                found.append(process)
        return found

    def said(self) -> str:
        """All logs, for whoever reads about a failure."""
        logs = [*self.folder.glob("*.log"), *self.shared.glob("logs/*.txt")]
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in logs)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 100.0) -> float:
        """Wait for something to happen; the seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, self.said()
            time.sleep(0.02)
        return time.monotonic() - began


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with two_machines() as machines:
        yield Cluster(machines, tmp_path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of one process on one machine."""
    work = Work.local(folder := tmp_path_factory.mktemp("alone"))
    train(folder, {"training": SLOW}, work)
    return _curve(work)


def _curve(work: Work) -> dict[int, float]:
    return {entry["step"]: entry["value"] for entry in work.metrics() if entry["name"] == "loss"}


def test_a_training_outlives_its_pipeline_and_a_killed_rank_and_ends_as_if_nothing_had_happened(
    cluster: Cluster, alone: dict[int, float]
) -> None:
    join, pipeline = cluster.join(), cluster.pipeline(**SLOW)
    cluster.wait_until(lambda: any(step >= 10 for step in cluster.steps()))
    ranks = [rank for machine in cluster.machines for rank in cluster.ranks(machine)]
    assert len(ranks) == 2
    os.kill(pipeline.pid, signal.SIGKILL)
    pipeline.wait()

    # The next run of the pipeline takes the training up as it is.
    pipeline = cluster.pipeline(**SLOW)
    cluster.wait_until(lambda: any(step >= 20 for step in cluster.steps()))
    assert [rank.is_running() for rank in ranks] == [True, True]
    assert cluster.submitted() == 1

    # It ends soon on both machines when a rank of one dies, and the retry starts it again.
    ranks[1].kill()
    took = cluster.wait_until(lambda: not ranks[0].is_running())
    print(f"the rank of the other machine ended {took:.1f} s after the killed one")
    assert took < 10
    assert pipeline.wait(100) == 0
    join.wait(20)
    assert cluster.submitted() == 2
    events = cluster.events()
    assert [e["error"] for e in events if e["event"] == "failed"] == ["ProcessFailed"]
    started = max(k for k, e in enumerate(events) if e["event"] == "message")
    went_on = next(e["done"] for e in events[started:] if e["event"] == "progress")
    assert went_on > 15  # from a checkpoint
    assert events[-1]["event"] == "trained"
    assert read_header(Path(events[-1]["path"]))[0] == "dalle"
    assert _curve(Work.local(cluster.home)) == pytest.approx(alone, rel=1e-4)
    assert cluster.machines.sent() > 100_000  # gradients went over the link
