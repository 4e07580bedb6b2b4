"""Any rank killed at any time, ten times in a row: the weights of an undisturbed run in the end."""

from __future__ import annotations

import random
import time
from pathlib import Path

from safetensors.torch import load_file

from model_zoo.training.worker import main
from tests.model_zoo.training.cases import Case, run_cases
from tests.model_zoo.training.ranks import Ranks

_PROCESSES = 2
_TRAINING = {
    "steps": 120, "checkpoint_every": 4, "precision": "fp16", "zero_stage": 2,
    "compression": {"rank": 8},
}  # fmt: skip


def _kill_one(case: Case, draw: random.Random, log: Path) -> None:
    """Start the training, and kill a rank after a while or after some updates."""
    ranks = Ranks(_PROCESSES, main, [str(case.path)], log=log)
    early = draw.random() < 0.3
    deadline = time.monotonic() + (draw.uniform(0.0, 1.5) if early else 120.0)
    target, victim = _said(case) + draw.randint(1, 9), draw.randrange(_PROCESSES)
    while time.monotonic() < deadline and ranks.poll() is None:
        if not early and _said(case) >= target:
            break
        time.sleep(0.003)
    assert ranks.poll() is None, f"the training ended before its rank was killed: {ranks.said()}"
    ranks.processes[victim].kill()
    # As torchrun does: what is left is told to leave, and killed when it does not.
    other = ranks.processes[1 - victim]
    time.sleep(draw.uniform(0.0, 0.2))
    other.terminate()
    other.join(draw.uniform(0.0, 0.5))
    assert ranks.wait() != 0


def _said(case: Case) -> int:
    return case.progress.read_bytes().count(b"\n") if case.progress.exists() else 0


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
