"""A data stage whose Dask scheduler is killed fails soon, and goes on with what was finished."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from flows.declaration import bind
from flows.stage_runner import RunIds, StageRunner
from infra.environment import Environment
from infra.manifests import latest
from infra.process import start_guarded, wait_for
from infra.store import Store
from infra.trace import resolve, verify
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration
from tests.flows.command import ROOT
from tests.tasks.sources.warc_files import WarcMaker
from tests.tasks.sources.web_pages import page

FILES, PAGES = 8, 150
DECLARATION = """\
name: crawl
stages:
  pairs:
    task: collect_pairs
    params: {files: ["FOLDER/*.warc.gz"]}
"""


class Cluster:
    """A scheduler that can be killed and started again, and two workers for each of its lives."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._lives = folder, stack, 0
        self.address = "tcp://127.0.0.1:0"

    def start(self) -> str:
        """Start a scheduler, where the one before was."""
        self._lives += 1
        told, port = self._folder / f"scheduler-{self._lives}.json", self.address.split(":")[-1]
        self._scheduler = self._run(
            "scheduler", "--host", "127.0.0.1", "--port", port, "--scheduler-file", str(told)
        )
        wait_for(told, self._scheduler, 30)
        self.address = json.loads(told.read_text())["address"]
        for _ in range(2):
            self._run("worker", self.address, "--nthreads", "1")
        return self.address

    def kill_scheduler(self) -> None:
        """SIGKILL for it alone."""
        (process,) = psutil.Process(self._scheduler.pid).children()
        process.kill()

    def _run(self, name: str, *options: str):
        return self._stack.enter_context(
            start_guarded(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *options, "--no-dashboard"],
                log=self._folder / f"{name}-{self._lives}.log", cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "dask").mkdir()
    with ExitStack() as stack:
        yield Cluster(tmp_path / "dask", stack)


class Crawl:
    """The stage in a home; it can be made again and again, as a pipeline's retries do."""

    def __init__(self, files: Path, home: Path, address: str) -> None:
        self.environment = Environment(home=home, dask=address)
        self.store = Store(self.environment.store_url)
        text = DECLARATION.replace("FOLDER", str(files))
        self._stage = bind(parse_declaration(text, "crawl.yaml")).stages["pairs"]

    def make(self) -> Manifest:
        runner = StageRunner("crawl", self.store, self.environment)
        identity, _ = runner.find(self._stage, {})
        return runner.make(self._stage, {}, identity, RunIds(), lambda event: None)

    def memos(self) -> dict[str, int]:
        """When each finished unit was noted down."""
        folder = Path(self.store.path("memo"))
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")}


def _write_files(folder: Path) -> Path:
    for number in range(FILES):
        maker = WarcMaker()
        for seed in range(number * PAGES, (number + 1) * PAGES):
            maker.add(*page(seed))
        (folder / f"{number}.warc.gz").write_bytes(maker.bytes())
    return folder


@pytest.mark.parametrize("late", [False, True])
def test_a_killed_scheduler_loses_nothing_and_makes_nothing_twice(
    late: bool, cluster: Cluster, tmp_path: Path
) -> None:
    files = _write_files(tmp_path)
    whole = Crawl(files, tmp_path / "whole", "inline").make()
    crawl = Crawl(files, tmp_path / "home", cluster.start())
    if late:
        crawl.environment.client()._timeout = 1.0  # seconds after which it gives a scheduler up
    killer = threading.Thread(target=_kill_in_the_middle, args=(crawl, cluster))
    killer.start()
    with pytest.raises(ConnectionError, match=rf"scheduler at {cluster.address} has gone"):
        crawl.make()
    killer.join()
    assert latest(crawl.store, "crawl", "pairs") is None
    if late:
        _wait_until_given_up(crawl.environment)
    cluster.start()
    finished = crawl.memos()
    assert 2 <= len(finished) < FILES
    made = crawl.make()
    crawl.environment.close()

    assert finished.items() <= crawl.memos().items()
    assert made.run.units_reused >= len(finished)
    assert {n: o.digest for n, o in made.outputs.items()} == {
        n: o.digest for n, o in whole.outputs.items()
    }
    assert made.counts == whole.counts
    assert crawl.store.names("partial") == []
    assert verify(crawl.store, resolve(crawl.store, "crawl/pairs", "")) == []


def _kill_in_the_middle(crawl: Crawl, cluster: Cluster) -> None:
    deadline = time.monotonic() + 30
    while len(crawl.memos()) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    cluster.kill_scheduler()


def _wait_until_given_up(environment: Environment) -> None:
    client, deadline = environment._client, time.monotonic() + 30
    while client.status != "closed":
        assert time.monotonic() < deadline
        time.sleep(0.05)
