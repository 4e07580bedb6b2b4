"""Every stage of `shapes`, killed again and again, ends with what an undisturbed run has made."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from flows.declaration import load_pipeline
from infra.environment import Environment
from infra.gateway.journal import JournalReader
from infra.manifests import latest, read_metrics
from infra.store import Store
from infra.trace import resolve, verify
from model_zoo.training.checkpoints import complete_checkpoints, step_of
from schemas.manifest import Manifest
from tests.flows.attempts import Dies
from tests.flows.command import ROOT, Tapir, kill
from tests.flows.shapes import Shapes, tiny
from tests.infra.making import fresh_database

pytestmark = pytest.mark.slow  # all of it compares with a whole run

STAGES = [name for name in tiny()["stages"] if name != "model"]
TRAININGS = ("image_tokenizer", "prior", "ranker")
ON_DASK = ("clean", "codes")  # the others' calls run inline, which spares the cluster's start
PASSES = 2  # of `images`, as declared

# Metrics of a training that tell of the machine and not of the network.
MEASURED = {
    "tokens_per_second", "loader_share", "memory_gb", "cores", "utilisation", "measuring_seconds",
}  # fmt: skip
JUDGED = "trained_on/"


class Attempts:
    """The process that forks for each attempt."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.attempts"], cwd=ROOT, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self, **order: str) -> psutil.Process:
        """Start an attempt."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return psutil.Process(int(self._process.stdout.readline()))

    def close(self) -> None:
        """Start no more."""
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()


@pytest.fixture(scope="module")
def attempts() -> Iterator[Attempts]:
    started = Attempts()
    yield started
    started.close()


class Stage:
    """A stage that is to be made in a home where only what it needs is made."""

    def __init__(self, name: str, shapes: Shapes, folder: Path, server: str | None = None) -> None:
        self.name = name
        self.tapir = Tapir(folder, shapes.tapir.file.read_text(), server)
        self.pipeline = load_pipeline(str(self.tapir.file)).until(name)
        self.store = Store(Environment(home=self.tapir.home).store_url)
        self.moments = random.Random(f"kills/{name}")
        self.events = folder / "events.jsonl"
        self._copy(shapes)

    def _copy(self, shapes: Shapes) -> None:
        web = shutil.ignore_patterns("access.jsonl", "hosts.json")
        shutil.copytree(shapes.tapir.home / "web", self.tapir.home / "web", ignore=web)
        for stage in self.pipeline.stages:
            if stage != self.name:
                self._copy_published(shapes, shapes.manifest(stage))

    def _copy_published(self, shapes: Shapes, manifest: Manifest) -> None:
        units = [unit for output in manifest.outputs.values() for unit in output.units]
        entries = [self.store.blob(unit.sha256) for unit in (*units, *manifest.side)]
        entries += [
            f"manifests/{manifest.provenance}.json", f"fingerprints/{manifest.fingerprint}",
            f"pipelines/shapes/{manifest.stage}.json",
        ]  # fmt: skip
        for entry in entries:
            target = Path(self.store.path(entry))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(shapes.store.path(entry), target)

    def start(self, attempts: Attempts, dies: Dies) -> psutil.Process:
        """Start an attempt at it, and wait until the work begins."""
        self.events.unlink(missing_ok=True)
        process = attempts.start(
            home=str(self.tapir.home), file=str(self.tapir.file), stage=self.name,
            events=str(self.events), dies=dies,
            dask=None if self.name in ON_DASK else "inline",
        )  # fmt: skip
        while not self.events.exists():
            assert process.is_running(), self.said()
            time.sleep(0.01)
        return process

    def wait(self, process: psutil.Process) -> list[dict[str, Any]]:
        """Wait for the end of an attempt; its events."""
        gone, _ = psutil.wait_procs([process], timeout=120)
        assert gone, "it did not end"
        return [json.loads(line) for line in self.events.read_text().splitlines()]

    def said(self) -> str:
        """What attempts said on standard error."""
        return self.events.with_suffix(".log").read_text()

    # What a kill leaves

    def memos(self) -> dict[str, int]:
        """Times at which finished units were noted down."""
        folder = Path(self.store.path("memo"))
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}

    def states(self) -> list[Path]:
        """State folders of unfinished attempts."""
        return sorted(Path(self.store.path("partial")).glob("*/*/state"))

    def checkpoint(self) -> int:
        """The last update that a next attempt need not do again."""
        folders = [one for state in self.states() for one in state.glob("frozen/checkpoints*")]
        found = [step_of(one) for folder in folders for one in complete_checkpoints(folder)]
        return max(found, default=0)

    def settled(self) -> dict[str, int]:
        """Attempts at each URL that is never to be asked for again."""
        found: dict[str, int] = {}
        folder = self.tapir.folder / "collection"
        for state in self.states():
            if (state / "collection" / "journal.sqlite").exists():
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(state / "collection", folder)  # reading may write
                with JournalReader(folder / "journal.sqlite") as journal:
                    last = {one.key: one for one in journal.all_attempts()}
                found |= {k: a.attempt for k, a in last.items() if a.ok or a.is_final(PASSES)}
        return found

    # What there is in the end

    def asked(self) -> dict[str, int]:
        """Attempts at each URL."""
        found: dict[str, int] = {}
        for unit in self.manifest().side:
            if unit.name == "attempts.parquet":
                rows = pq.read_table(self.store.path(self.store.blob(unit.sha256))).to_pylist()
                found |= {row["key"]: row["attempt"] for row in rows}
        return found

    def manifest(self) -> Manifest:
        """What counts as made."""
        found = latest(self.store, "shapes", self.name)
        assert found is not None
        return found

    def check(self, shapes: Shapes) -> None:
        """It is as the undisturbed run has made it, whole, and nothing else is left."""
        here, there = self.manifest(), shapes.manifest(self.name)
        assert here.fingerprint == there.fingerprint
        assert {n: o.digest for n, o in here.outputs.items()} == {
            n: o.digest for n, o in there.outputs.items()
        }
        counts = [{k: v for k, v in m.counts.items() if k != "requests"} for m in (here, there)]
        assert counts[0] == counts[1]
        own, whole = curve(self.store, here), curve(shapes.store, there)
        # Which checkpoints were judged on the way is chance, but not what was found.
        judged = {key for key in own.keys() ^ whole.keys() if key[0].startswith(JUDGED)}
        assert not any(step == 8 and name == f"{JUDGED}psnr" for name, step in judged)
        assert {k: v for k, v in own.items() if k not in judged} == {
            k: v for k, v in whole.items() if k not in judged
        }
        assert self.store.names("partial") == []
        assert verify(self.store, resolve(self.store, f"shapes/{self.name}", "")) == []


def curve(store: Store, manifest: Manifest) -> dict[tuple[str, int], float]:
    """All metrics over time but the speed, which differs by nature."""
    return {
        (entry["name"], entry["step"]): entry["value"]
        for entry in read_metrics(store, manifest)
        if entry["name"] not in MEASURED
    }


def duration(shapes: Shapes, stage: str) -> float:
    """Seconds that an undisturbed attempt took."""
    run = shapes.manifest(stage).run
    return run.ended - run.started


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_ends_with_the_same(
    name: str, shapes: Shapes, attempts: Attempts, tmp_path: Path
) -> None:
    stage = Stage(name, shapes, tmp_path)
    finished = Finished()
    for whole_tree in (True, False):
        # One that is faster than its like was dies all the same, before it publishes.
        process = stage.start(attempts, Dies.BEFORE_MANIFEST)
        time.sleep(stage.moments.uniform(0.05, 0.8) * duration(shapes, name))
        kill(process, whole_tree)
        finished.note(stage, stage.wait(process))
    # Publishing is the same for all; a training's process takes long to start for that alone.
    places = [Dies.BEFORE_MANIFEST, *([] if name in TRAININGS else [Dies.BEFORE_POINTER])]
    for dies in places:
        finished.note(stage, stage.wait(stage.start(attempts, dies)))
    assert finished.updates == (8 if name in TRAININGS else 0)
    events = stage.wait(stage.start(attempts, Dies.NEVER))
    assert events[-1]["event"] == "ended", stage.said()
    finished.check_updates(events)
    stage.check(shapes)
    finished.check(stage)


# What a data stage has working for it, by a word of its command line.
HELPERS = {
    "images": ("infra.gateway", "img2dataset_main"),
    "clean": ("multiprocessing.spawn",),  # Dask's workers
}


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_that_are_killed_change_nothing(
    name: str, shapes: Shapes, attempts: Attempts, tmp_path: Path
) -> None:
    stage = Stage(name, shapes, tmp_path)
    finished, killed, ended = Finished(), 0, False
    for number in range(8):
        process = stage.start(attempts, Dies.NEVER)
        victims = HELPERS[name]
        if number < 2 * len(victims):  # the attempts after these are left alone
            killed += kill_helper(process, victims[number % len(victims)], stage.moments)
        events = stage.wait(process)
        ended = events[-1]["event"] == "ended"
        if ended:
            break
        finished.note(stage, events)
    assert ended, stage.said()
    assert killed
    stage.check(shapes)
    # A worker that is killed alone does not stop the stage, so nothing of it need be left over.
    assert finished.units.items() <= stage.memos().items()
    assert finished.urls.items() <= stage.asked().items()


def kill_helper(process: psutil.Process, word: str, moments: random.Random) -> bool:
    """SIGKILL for one helper of an attempt at a random moment; whether there was one."""
    deadline = time.monotonic() + 30
    while process.is_running() and time.monotonic() < deadline:
        found = [one for one in processes_below(process) if word in " ".join(one[1])]
        if found:
            time.sleep(moments.uniform(0.0, 1.5))
            victim, _ = moments.choice(sorted(found, key=lambda one: one[0].pid))
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                victim.kill()
                return True
            return False
        time.sleep(0.01)
    return False


def processes_below(process: psutil.Process) -> list[tuple[psutil.Process, list[str]]]:
    """All that a process has started, with their command lines."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((one, one.cmdline()))
    return found


class Finished:
    """What was finished when an attempt was killed, and is never to be made again."""

    def __init__(self) -> None:
        self.units: dict[str, int] = {}
        self.urls: dict[str, int] = {}
        self.updates = 0

    def note(self, stage: Stage, events: list[dict[str, Any]]) -> None:
        """Take in what a kill has left, which nobody may be at work on any more."""
        assert events[-1]["event"] != "ended"
        assert stage.tapir.left_running() == []
        self.check_updates(events)
        self.updates = stage.checkpoint()
        self.units = {**stage.memos(), **self.units}
        self.urls = {**stage.settled(), **self.urls}

    def check_updates(self, events: list[dict[str, Any]]) -> None:
        """An attempt did no update of the weights that a checkpoint had before it."""
        done = [one["done"] for one in events if one.get("unit") == "updates"]
        assert min(done, default=self.updates + 1) > self.updates

    def check(self, stage: Stage) -> None:
        """The attempt that came to the end made nothing of this again."""
        assert self.units.items() <= stage.memos().items()
        assert stage.manifest().run.units_reused == len(stage.memos()) == len(self.units)
        assert bool(self.urls) == (stage.name == "images")
        assert self.urls.items() <= stage.asked().items()


@pytest.mark.parametrize("name", ["images", "prior"])
def test_a_killed_run_ends_with_the_same(
    name: str, shapes: Shapes, server: str, tmp_path: Path
) -> None:
    stage = Stage(name, shapes, tmp_path, server)
    uri = fresh_database(stage.tapir.home)
    command = ("run", str(stage.tapir.file), "--until", name)
    for whole_tree in (True, False):
        process = stage.tapir.start(*command)
        assert process.stderr
        assert any(f"{name}: running" in line for line in process.stderr)
        # Long before the end, also where the machine was busier when it ran undisturbed.
        time.sleep(stage.moments.uniform(0.1, 0.8) * min(duration(shapes, name), 6.0))
        kill(psutil.Process(process.pid), whole_tree)
        process.communicate()
        assert stage.tapir.left_running() == []
        assert latest(stage.store, "shapes", name) is None
    stage.tapir(*command)
    stage.check(shapes)
    client = MlflowClient(uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {"KILLED", "FINISHED"} == {run.info.status for run in runs}


def test_a_killed_registration_is_finished_by_the_next(
    shapes: Shapes, attempts: Attempts, tmp_path: Path
) -> None:
    stage = Stage("model", shapes, tmp_path)
    uri = fresh_database(stage.tapir.home)
    for whole_tree in (True, False, True):
        process = stage.start(attempts, Dies.NEVER)
        time.sleep(stage.moments.uniform(0.5, 4.0))
        kill(process, whole_tree)
        stage.wait(process)
        assert stage.tapir.left_running() == []
    events = stage.wait(stage.start(attempts, Dies.NEVER))
    assert events[-1]["event"] == "ended", stage.said()
    (version,) = MlflowClient(uri).search_model_versions("name = 'shapes'")
    aliases = MlflowClient(uri).get_registered_model("shapes").aliases
    assert aliases == {"candidate": version.version, "champion": version.version}
    assert verify(stage.store, resolve(stage.store, "models:/shapes@champion", uri)) == []
