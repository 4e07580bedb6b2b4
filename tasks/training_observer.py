"""What a stage measures of a network while other processes train it, and what it notices.

A thread of the stage's process takes the newest checkpoint whenever it has done with the one
before, and in the end what the training has given, so that the last figures are those of the
network that is published. It gives way to the ranks and computes on one core; a measurement that
fails is said, and changes nothing in the training.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from infra.work import Work
from model_zoo.training.checkpoints import complete_checkpoints, step_of
from tasks.training_watch import Notice, link_checkpoint

if TYPE_CHECKING:
    from torch import nn

Measure = Callable[["nn.Module", int], Mapping[str, float]]
"""Metrics of a network in evaluation mode, with the weights that the training would give if it
ended at this update. It is called in another thread, one call at a time."""

SECONDS = "measuring_seconds"  # its metric marks the updates that were measured
_NICE = 10  # of 19: a rank that wants the core gets nine tenths of it
_POLL, _PATIENCE = 0.2, 10.0


@dataclass
class _Measured:
    step: int
    values: Mapping[str, float]
    failure: str = ""


class _Stopped(Exception):
    """The stage leaves before the measurement is done."""


class Observer:
    """Measures a network that is being trained; a context manager, which ends its thread.

    Args:
        network, config: what is trained.
        checkpoints: the folder of those that the stage keeps.
        measure: None measures nothing.
        notice: is told what was measured, as it is told the metrics of the training.
    """

    def __init__(
        self, network: str, config: Mapping[str, Any], checkpoints: Path, work: Work,
        measure: Measure | None, notice: Notice | None,
    ) -> None:  # fmt: skip
        self._what = (network, config)
        self._checkpoints = checkpoints
        self._work = work
        self._measure = measure
        self._notice = notice
        self._steps = {entry["step"] for entry in work.metrics() if entry["name"] == SECONDS}
        self._folder = work.scratch / "measured"
        self._network: nn.Module | None = None
        self._thread: threading.Thread | None = None
        self._measured: _Measured | None = None
        self._leaving = threading.Event()

    def look(self) -> None:
        """Log what was measured, and begin with the newest checkpoint if nothing is under way."""
        if self._measure is None or (self._thread and self._thread.is_alive()):
            return
        self._collect()
        found = complete_checkpoints(self._checkpoints)
        if found and step_of(found[-1]) not in self._steps:
            # Linked: the ranks drop it for a newer one while it is read.
            path = self._folder / found[-1].name
            link_checkpoint(found[-1], path)
            self._begin(path, step_of(found[-1]))

    def finish(self, path: Path, step: int, wish: threading.Event) -> None:
        """Measure the trained network in a file, unless `wish` is set before that is done."""
        if self._measure is None:
            return
        self._wait(wish)
        if step not in self._steps and not wish.is_set():
            self._begin(path, step)
            self._wait(wish)

    def _wait(self, wish: threading.Event) -> None:
        while self._thread and self._thread.is_alive() and not wish.is_set():
            self._thread.join(_POLL)
        self._collect()

    def _begin(self, path: Path, step: int) -> None:
        self._steps.add(step)
        self._thread = threading.Thread(target=self._run, args=(path, step), daemon=True)
        self._thread.start()

    def _run(self, path: Path, step: int) -> None:
        from tasks.devices import steady_threads

        began = time.monotonic()
        try:
            _give_way()
            with steady_threads():
                assert self._measure is not None
                values = dict(self._measure(self._network_of(path), step))
            values[SECONDS] = time.monotonic() - began
            self._measured = _Measured(step, values)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._measured = _Measured(step, {}, f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)  # or its disk space is kept

    def _network_of(self, path: Path) -> nn.Module:
        """The network with the weights of a checkpoint or of a trained network's file."""
        from safetensors.torch import load_file

        from model_zoo.training.shards import read_weights
        from model_zoo.weights import build_recipe

        if self._network is None:
            self._network = build_recipe(*self._what).network.eval()
            for module in self._network.modules():
                module.register_forward_pre_hook(self._check)
        shapes = {name: tuple(one.shape) for name, one in self._network.named_parameters()}
        weights = read_weights(path, shapes) if path.is_dir() else load_file(path)
        self._network.load_state_dict(weights)
        return self._network

    def _check(self, *_: Any) -> None:
        if self._leaving.is_set():
            raise _Stopped

    def _collect(self) -> None:
        """Pass on what the thread has left."""
        measured, self._measured = self._measured, None
        if measured is None:
            return
        if measured.failure:
            self._work.message(f"update {measured.step} was not measured: {measured.failure}")
            return
        self._work.log(measured.values, measured.step)
        if self._notice is not None:
            self._notice(measured.values, measured.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)


def _give_way() -> None:
    """Let every other process have the core before this thread (Linux has priorities a thread)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
