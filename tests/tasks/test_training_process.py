"""Training survives kills, says what is wrong, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from infra.errors import PermanentError
from infra.launch import local
from infra.process import ProcessFailed
from infra.work import Event, Work
from model_zoo.training.checkpoints import find_damage, step_of
from tasks import training_process
from tasks.train_prior import PriorParams
from tasks.training_process import train_network
from tests.tasks.attempt import CONFIG, SIZES, TRAINING
from tests.tasks.attempt import pairs as _pairs


def _params(**training: Any) -> PriorParams:
    return PriorParams(config=CONFIG, training={**TRAINING, **training})


def _train(params: PriorParams, work: Work, pairs: Path) -> Path:
    return train_network(params, params.training, params.with_sizes(SIZES), [pairs], work)


def _curve(work: Work) -> dict[int, float]:
    return {entry["step"]: entry["value"] for entry in work.metrics() if entry["name"] == "loss"}


@dataclass
class Whole:
    """A training that nothing interrupts: its folder, loss curve and weights."""

    folder: Path
    curve: dict[int, float]
    weights: dict[str, np.ndarray]
    saved: list[Path]  # copies of the state, one each time that it was saved


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, saved = tmp_path_factory.mktemp("whole"), list[Path]()

    def save(state: Path) -> None:
        saved.append(folder / f"saved-{len(saved)}")
        shutil.copytree(state, saved[-1])

    work = Work.local(folder, save=save)
    path = _train(_params(), work, _pairs(folder))
    return Whole(folder, _curve(work), load_file(path), saved)


def _kill_worker_at(step: int, killed: list[int]) -> Callable[[Event], None]:
    """A listener that kills the training's worker, once, when it is that far."""

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.values["done"] >= step and not killed:
            for process in psutil.Process().children(recursive=True):
                if training_process.WORKER in process.cmdline() and "guard.py" not in "".join(
                    process.cmdline()
                ):
                    killed.append(process.pid)
                    process.kill()

    return listen


def test_a_killed_worker_is_noticed_and_the_next_attempt_ends_as_if_nothing_had_happened(
    tmp_path: Path, whole: Whole
) -> None:
    pairs, killed = _pairs(tmp_path), list[int]()
    params = _params()
    with pytest.raises(ProcessFailed, match="signal 9"):
        _train(params, Work.local(tmp_path, listen=_kill_worker_at(10, killed)), pairs)
    assert killed
    assert any((tmp_path / "state/frozen/checkpoints").glob("step-*"))
    steps = list[int]()
    work = Work.local(tmp_path, listen=lambda e: steps.append(e.values.get("done", 0)))
    path = _train(params, work, pairs)
    assert min(step for step in steps if step) > 5  # it went on from a checkpoint
    assert _curve(work) == whole.curve
    for name, value in load_file(path).items():
        np.testing.assert_array_equal(value, whole.weights[name])


def test_a_damaged_checkpoint_is_passed_over_and_made_again(tmp_path: Path, whole: Whole) -> None:
    shutil.copytree(whole.folder / "state", tmp_path / "state")
    newest = max((tmp_path / "state/frozen/checkpoints").iterdir())
    damaged = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    work = Work.local(tmp_path)
    path = _train(_params(), work, _pairs(tmp_path))
    assert find_damage(newest) is None
    assert _curve(work) == whole.curve
    for name, value in load_file(path).items():
        np.testing.assert_array_equal(value, whole.weights[name])


_PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.tasks.test_training_process import _pairs, _params, _train
from infra.work import Work
folder = Path(sys.argv[1])
_train(_params(steps=100_000), Work.local(folder), _pairs(folder))
"""


def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", _PARENT, str(tmp_path), root]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True) as parent:
        _wait_until(lambda: any((tmp_path / "state/frozen/checkpoints").glob("step-*")))
        below = psutil.Process(parent.pid).children(recursive=True)
        assert any(training_process.WORKER in " ".join(one.cmdline()) for one in below)
        os.kill(parent.pid, signal.SIGKILL)
    _wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in below))


def _wait_until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_state_that_is_saved_is_whole_and_has_the_curve_up_to_there(whole: Whole) -> None:
    assert whole.saved
    for copy in whole.saved:
        newest = max((copy / "frozen/checkpoints").iterdir())
        assert find_damage(newest) is None
        lines = (copy / "metrics.jsonl").read_text().splitlines()
        steps = {entry["step"] for line in lines if (entry := json.loads(line))["name"] == "loss"}
        assert set(range(2, step_of(newest) + 1, 2)) <= steps


def test_what_the_worker_says_is_wrong_is_said_and_not_tried_again(tmp_path: Path) -> None:
    params, pairs, work = _params(), _pairs(tmp_path), Work.local(tmp_path)
    config = {**params.config, **SIZES, "text_length": 5}
    with pytest.raises(PermanentError, match="text_length 5"):
        train_network(params, params.training, config, [pairs], work)


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = ["bash", "-c", "echo waiting for the others; sleep 60"]
    monkeypatch.setattr(local, "rank_command", lambda *_: waiting)
    params = _params().model_copy(update={"patience": 0.5})
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="(?s)no sign of progress.*waiting for the others"):
        _train(params, Work.local(tmp_path), _pairs(tmp_path))
    assert time.monotonic() - began < 20
    assert not any("sleep" in one.name() for one in _below())


def _below() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.status() != "zombie"]


def test_sigterm_to_the_pipeline_writes_a_checkpoint_and_the_next_attempt_goes_on_from_it(
    tmp_path: Path, whole: Whole
) -> None:
    kept = tmp_path / "state/frozen/checkpoints"
    rarely = {"training": {**TRAINING, "checkpoint_every": 1000, "log_every": 1}}
    command = [sys.executable, "-m", "tests.tasks.attempt", str(tmp_path), json.dumps(rarely)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as pipeline:
        events = tmp_path / "events.jsonl"
        _wait_until(lambda: events.exists() and '"done"' in events.read_text())
        pipeline.send_signal(signal.SIGTERM)
        assert pipeline.wait(60) == 0
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", "PermanentError")
    assert "told to stop" in last["text"]
    [checkpoint] = kept.iterdir()
    assert find_damage(checkpoint) is None
    assert 0 < step_of(checkpoint) < 40
    steps = list[int]()
    work = Work.local(tmp_path, listen=lambda e: steps.append(e.values.get("done", 0)))
    path = _train(_params(), work, _pairs(tmp_path))
    assert min(step for step in steps if step) > step_of(checkpoint)
    assert {step: loss for step, loss in _curve(work).items() if step in whole.curve} == whole.curve
    for name, value in load_file(path).items():
        np.testing.assert_array_equal(value, whole.weights[name])


def test_several_processes_train_together(tmp_path: Path) -> None:
    params = _params(steps=2, engine="deepspeed").model_copy(update={"processes": 2})
    work = Work.local(tmp_path)
    path = _train(params, work, _pairs(tmp_path))
    assert path.exists()
    assert list(_curve(work)) == [2]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"widht": 16, "heads": 2, "layers": 2}, "widht: unknown key; did you mean 'width'"),
        ({"width": 16, "layers": 2}, "heads: this key is missing"),
        ({"width": "wide", "heads": 2, "layers": 2}, "width: .*'wide'"),
        ({"width": 15, "heads": 2, "layers": 2}, "does not divide into 2 heads"),
        ({"width": 16, "heads": 2, "layers": 2, "grid_width": 8}, "follows from the stage"),
    ],
)
def test_a_wrong_configuration_is_refused_when_it_is_read(
    config: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        PriorParams(config=config, training=TRAINING)


def test_an_unknown_network_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="there is no module model_zoo"):
        PriorParams(network="dall_e", training=TRAINING)


def test_the_network_and_the_training_system_are_part_of_the_code() -> None:
    from schemas.fingerprint import code_digests

    digests = code_digests(["tasks.train_prior", *_params().modules()])
    assert {"model_zoo.dalle", "model_zoo.training.loop", "tasks.training_process"} <= set(digests)
    assert "model_zoo.dvae" not in digests


def test_how_often_it_saves_is_no_part_of_the_identity() -> None:
    assert _params().identity() == _params(checkpoint_every=7, log_every=3).identity()
    assert _params().identity() != _params(seed=1).identity()
