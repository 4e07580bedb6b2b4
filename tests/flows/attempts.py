"""Attempts at a stage in processes of their own, to be killed: `python -m tests.flows.attempts`.

Reads orders, a JSON object a line, from standard input; forks for each and prints the process's id.
All that stages import is imported before, so that an attempt starts at once. An attempt runs the
stage by the real runner on a real home, and writes what happens to the order's `events`, one JSON
object a line. If it is told so, it kills itself in the middle of publishing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from flows.declaration import BoundPipeline, BoundStage, load_pipeline
from flows.stage_runner import RunIds, StageRunner, references
from flows.web import serving
from infra.environment import Environment
from infra.manifests import latest
from infra.store import Store
from infra.work import Event
from schemas.manifest import InputRef, Manifest


class Dies(StrEnum):
    """Where an attempt that has come so far kills itself."""

    BEFORE_MANIFEST = "before the manifest"  # all data are there
    BEFORE_POINTER = "before the pointer"  # the manifest, too, but nothing says that it counts
    NEVER = "never"


class DyingStore(Store):
    """Kills the process that would say that a manifest counts."""

    def create(self, relative: str, value: Any) -> bool:
        if relative.startswith("fingerprints/"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().create(relative, value)


class DyingRunner(StageRunner):
    """Dies where it is told to."""

    dies = Dies.NEVER

    def publish(self, stage: BoundStage, manifest: Manifest) -> Manifest:
        if self.dies is Dies.BEFORE_MANIFEST:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.dies is Dies.BEFORE_POINTER:
            self.store = DyingStore(self.store.url)
        return super().publish(stage, manifest)


class Events:
    """The file in which an attempt says what happens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event, at once."""
        with self._path.open("a") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")

    def listen(self, event: Event) -> None:
        """Take progress down, as somebody who watches would."""
        if event.kind == "progress":
            self.write("progress", **event.values)


def attempt(order: dict[str, Any]) -> None:
    """Run one stage whose inputs are made, in a home."""
    os.environ["TAPIR_HOME"] = order["home"]
    events = Events(Path(order["events"]))
    pipeline = load_pipeline(order["file"])
    stage = pipeline.stages[order["stage"]]
    environment = Environment(home=Path(order["home"]), dask=order["dask"])
    runner = DyingRunner(pipeline.name, Store(environment.store_url), environment)
    runner.dies = Dies(order["dies"])
    with _web(pipeline, stage, environment):
        inputs = _inputs(pipeline, stage, runner.store)
        identity, manifest = runner.find(stage, inputs)
        assert manifest is None, f"{stage.name} is made already"
        events.write("begun")
        if stage.spec.effect:
            runner.perform(stage, inputs, identity, events.listen)
        else:
            runner.make(stage, inputs, identity, RunIds(), events.listen)
    environment.close()
    events.write("ended")


def _web(
    pipeline: BoundPipeline, stage: BoundStage, environment: Environment
) -> contextlib.AbstractContextManager[None]:
    if stage.spec.name == "download_images":
        return serving(pipeline, environment, print)
    return contextlib.nullcontext()


def _inputs(pipeline: BoundPipeline, stage: BoundStage, store: Store) -> dict[str, InputRef]:
    made = {
        argument: (latest(store, pipeline.name, link.stage), link.output)
        for argument, link in stage.inputs.items()
    }
    return {argument: references(one)[output] for argument, (one, output) in made.items() if one}


def main() -> None:
    """Fork for each order until there are no more."""
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends leaves no zombie behind
    assert threading.active_count() == 1, "only the forking thread goes on in a fork"
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        print(pid, flush=True)


def _import_all() -> None:
    import distributed
    import open_clip

    assert distributed and open_clip
    load_pipeline("shapes")


def _run(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with _said(Path(order["events"]).with_suffix(".log")):
        status = 1
        try:
            attempt(order)
            status = 0
        except Exception:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)  # what the forking process would do at its end is not to be done here


@contextlib.contextmanager
def _said(log: Path) -> Iterator[None]:
    """Standard output and error to a file; nothing to read."""
    with log.open("ab") as output, open(os.devnull, "rb") as nothing:
        for target, file in ((0, nothing), (1, output), (2, output)):
            os.dup2(file.fileno(), target)
        yield


if __name__ == "__main__":
    main()
