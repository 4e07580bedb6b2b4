"""Any rank killed at any time, ten times in a row: the weights of an undisturbed run in the end."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from tests.model_zoo.training.cases import ROOT, Case, environment, launcher, run_cases

_PROCESSES = 2
_TRAINING = {
    "steps": 200, "checkpoint_every": 4, "precision": "fp16", "zero_stage": 2,
    "compression": {"rank": 8},
}  # fmt: skip


def _rank(agent: subprocess.Popen[bytes], rank: int) -> psutil.Process | None:
    for process in psutil.Process(agent.pid).children(recursive=True):
        try:
            if process.environ().get("RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    return None


def _kill_one(case: Case, draw: random.Random, log: Path) -> None:
    """Start the training, and kill a rank after a while or after some updates."""
    with log.open("ab") as output:
        agent = subprocess.Popen(
            [sys.executable, *launcher(_PROCESSES), "-m", "model_zoo.training.worker", case.path],
            cwd=ROOT, env=environment(), stdout=output, stderr=output,
        )  # fmt: skip
    early = draw.random() < 0.3
    done = _said(case)
    deadline = time.monotonic() + (draw.uniform(0.5, 4.0) if early else 120.0)
    target, victim = done + draw.randint(1, 9), draw.randrange(_PROCESSES)
    while time.monotonic() < deadline and agent.poll() is None:
        if not early and _said(case) >= target:
            break
        time.sleep(0.003)
    while (process := _rank(agent, victim)) is None:
        assert agent.poll() is None, "the training ended before its rank was killed"
        time.sleep(0.01)
    process.kill()
    # The agent notices a lost rank and ends the others within a bounded time.
    assert agent.wait(timeout=60) != 0
    assert not [p for p in psutil.process_iter() if str(case.path) in " ".join(_line(p))]


def _said(case: Case) -> int:
    return case.progress.read_bytes().count(b"\n") if case.progress.exists() else 0


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_ten_kills_in_a_row_change_nothing(tmp_path: Path) -> None:
    undisturbed = Case(tmp_path, "undisturbed", 2, **_TRAINING)
    run_cases([undisturbed], _PROCESSES)
    case = Case(tmp_path, "killed", 2, **_TRAINING)
    draw = random.Random(7)
    kept = 0
    for _ in range(10):
        _kill_one(case, draw, tmp_path / "log.txt")
        kept += case.checkpoints.exists() and any(case.checkpoints.glob("step-*"))
    assert kept >= 5, "the kills came too early to mean anything"
    run_cases([case], _PROCESSES)
    assert (case.losses() == undisturbed.losses()).all()
    weights, wanted = load_file(case.output), load_file(undisturbed.output)
    for key, value in wanted.items():
        assert (weights[key] == value).all(), key
