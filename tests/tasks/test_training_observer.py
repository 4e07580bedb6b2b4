"""A network is measured while others train it, in the end in any case, and never in their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from infra.errors import PermanentError
from infra.launch.stopping import stop_trainings
from infra.work import Event, Work
from tasks.train_prior import PriorParams
from tasks.training_observer import SECONDS, Measure
from tasks.training_process import train_network
from tests.tasks.attempt import CONFIG, SIZES, TRAINING, pairs


def _train(work: Work, folder: Path, measure: Measure | None, **training: Any) -> Path:
    changed = {**TRAINING, "steps": 22, "checkpoint_every": 5, **training}
    params = PriorParams(config=CONFIG, training=changed)
    config = params.with_sizes(SIZES)
    return train_network(params, params.training, config, [pairs(folder)], work, measure)


def _measured(work: Work, name: str = "size") -> dict[int, float]:
    return {entry["step"]: entry["value"] for entry in work.metrics() if entry["name"] == name}


def _size(network: nn.Module) -> float:
    with torch.no_grad():
        return float(sum(one.double().square().sum() for one in network.parameters()))


class Sizes:
    """Measures the squared norm of all weights, and remembers who asked."""

    def __init__(self) -> None:
        self.threads = set[str]()

    def __call__(self, network: nn.Module, step: int) -> dict[str, float]:
        assert not network.training
        self.threads.add(threading.current_thread().name)
        return {"size": _size(network)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The weights that come of a training that nobody measures."""
    folder = tmp_path_factory.mktemp("plain")
    return load_file(_train(Work.local(folder), folder, None))


def test_the_last_figures_are_those_of_the_network_that_is_given(
    tmp_path: Path, plain: dict[str, np.ndarray]
) -> None:
    work, sizes = Work.local(tmp_path), Sizes()
    found = load_file(_train(work, tmp_path, sizes))
    assert found.keys() == plain.keys()
    assert all(np.array_equal(found[name], plain[name]) for name in plain)
    measured = _measured(work)
    assert max(measured) == 22  # of which there is no checkpoint
    squares = sum(float((one.astype(np.float64) ** 2).sum()) for one in found.values())
    assert measured[22] == pytest.approx(squares, rel=1e-9)
    assert set(measured) <= {5, 10, 15, 20, 22}
    assert _measured(work, SECONDS).keys() == measured.keys()
    assert threading.main_thread().name not in sizes.threads
    assert torch.get_num_threads() > 0


def test_a_checkpoint_is_measured_by_its_average(tmp_path: Path) -> None:
    """Slowly, so that the training has to go on beside it: each is measured while it is newest."""
    work = Work.local(tmp_path)

    def slow(network: nn.Module, step: int) -> dict[str, float]:
        time.sleep(0.2)
        left = [path.name for path in (work.scratch / "measured").glob("*")]
        assert left == ([f"step-{step:07d}"] if step < 22 else [])  # they would fill the disk
        return {"size": _size(network)}

    _train(work, tmp_path, slow, keep=10)
    assert 22 in _measured(work)
    kept = tmp_path / "state/frozen/checkpoints"
    between = {step: value for step, value in _measured(work).items() if step < 22}
    assert between
    for step, value in between.items():
        [shard] = (kept / f"step-{step:07d}").glob("shard-*.safetensors")
        average = [one for name, one in load_file(shard).items() if name.startswith("average/")]
        squares = sum(float((one.astype(np.float64) ** 2).sum()) for one in average)
        assert value == pytest.approx(squares, rel=1e-9)


def test_what_fails_is_said_and_the_training_goes_on(
    tmp_path: Path, plain: dict[str, np.ndarray]
) -> None:
    said = list[str]()

    def listen(event: Event) -> None:
        if event.kind == "message":
            said.append(event.values["text"])

    def fail(network: nn.Module, step: int) -> Mapping[str, float]:
        raise PermanentError("pictures: there is not one")

    work = Work.local(tmp_path, listen=listen)
    found = load_file(_train(work, tmp_path, fail))
    assert all(np.array_equal(found[name], plain[name]) for name in plain)
    assert "update 22 was not measured: PermanentError: pictures: there is not one" in said
    assert len(said) == len(set(said))  # an update is tried once
    assert not _measured(work, SECONDS)


def test_what_an_earlier_attempt_has_measured_is_not_measured_again(tmp_path: Path) -> None:
    first = Work.local(tmp_path)
    _train(first, tmp_path, Sizes())
    before, again = _measured(first), list[int]()

    def remember(network: nn.Module, step: int) -> dict[str, float]:
        again.append(step)
        return {"size": -1.0}

    second = Work.local(tmp_path)  # goes on from the checkpoint of update 20
    _train(second, tmp_path, remember)
    assert not set(again) & set(before)
    assert {step: value for step, value in _measured(second).items() if step in before} == before


def test_who_leaves_does_not_wait_for_a_measurement(tmp_path: Path) -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless(network: nn.Module, step: int) -> dict[str, float]:
        begun.set()
        tokens = torch.zeros(1, 6, dtype=torch.long)
        codes = torch.zeros(1, 16, dtype=torch.long)
        try:
            while True:
                network(tokens, codes)
        finally:
            ended.set()

    failures = list[BaseException]()

    def attempt() -> None:
        try:
            _train(Work.local(tmp_path), tmp_path, endless, steps=100_000)
        except PermanentError as error:
            failures.append(error)

    stage = threading.Thread(target=attempt)
    stage.start()
    assert begun.wait(60)
    stop_trainings()
    stage.join(30)
    assert not stage.is_alive()
    assert "told to stop" in str(failures[0])
    assert ended.wait(5)
