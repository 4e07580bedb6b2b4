"""A schedule on a real server, served by a worker: each run collects what is new, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.environment import Environment
from infra.manifests import latest
from infra.process import start_guarded, tail
from infra.store import Store
from schemas.artifact import Unit
from schemas.manifest import Manifest
from tests.flows.command import ROOT
from tests.flows.prefect_client import Prefect, asked
from tests.tasks.sources.warc_files import simple

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

DECLARATION = """\
name: monthly
first_month: FIRST
stages:
  pairs:
    task: collect_pairs
    params: {files: ["FOLDER/{month}/*.warc.gz"]}
  captions:
    task: filter_captions
    inputs: {pairs: pairs}
    params: {filters: [{caption_length: {min_words: 2, max_words: 60}}]}
"""
STAGES = ("pairs", "captions")
PATIENCE = 60.0
SOON = 5


@pytest.fixture
def scheduling(tmp_path: Path) -> Iterator[str]:
    """A server that schedules, as a deployed one does; those for one run do not."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    services = "PREFECT_SERVER_SERVICES_SCHEDULER"
    environment = {
        **os.environ, "PREFECT_HOME": str(tmp_path / "server"), f"{services}_LOOP_SECONDS": "1",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false", "PREFECT_SERVER_UI_ENABLED": "false",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    with start_guarded(command, log=tmp_path / "server.log", env=environment):
        url = f"http://127.0.0.1:{port}/api"
        await_answer(f"{url}/health", tmp_path / "server.log")
        yield url


def await_answer(url: str, log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise AssertionError(tail(log))


def test_scheduled_runs_collect_what_is_new_and_no_more(scheduling: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first, following = (f"{day:%Y-%m}" for day in (now, now.replace(day=1) + timedelta(days=32)))
    folder, home = tmp_path / "crawl", tmp_path / "home"
    file = tmp_path / "monthly.yaml"
    file.write_text(DECLARATION.replace("FIRST", first).replace("FOLDER", str(folder)))
    add_file(folder / first, "a.test")

    prefect = Prefect(scheduling, tmp_path)
    prefect("work-pool", "create", "tapir", "--type", "process")
    prefect("deploy", "--name", "collect/monthly")
    (deployment,) = asked(scheduling, "deployments/filter")
    assert deployment["global_concurrency_limit"]["limit"] == 1
    given = {"pipeline": str(file), "home": str(home)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "tapir"]
    # The worker ends with the test, and looks for runs every second.
    environment = {**prefect.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with start_guarded(command, log=tmp_path / "worker.log", env=environment, cwd=ROOT):
        schedule(scheduling, deployment, given, every=10_000)  # once; its month is the present one
        (only,) = completed(scheduling, deployment, 1)
        assert {state for _, state in only} == {"Completed"}
        before = made(home)
        assert {label(source.uri) for source in before["pairs"].sources} == {f"{first}/a.test"}

        add_file(folder / following, "b.test")
        schedule(scheduling, deployment, {**given, "month": following}, every=5)
        _, second, third = completed(scheduling, deployment, 3)[:3]
        assert {state for _, state in second} == {"Completed"}
        assert {state for _, state in third} == {"Cached"}
    after = made(home)
    assert {label(source.uri) for source in after["pairs"].sources} == {
        f"{first}/a.test", f"{following}/b.test",
    }  # fmt: skip
    for stage in STAGES:
        old, new = (units(one[stage]) for one in (before, after))
        assert [after[stage].run.units_made, after[stage].run.units_reused] == [1, 1], stage
        assert old < new
    shown = {one["key"] for one in asked(scheduling, "artifacts/filter")}
    assert {"monthly-funnel", "monthly-data"} <= shown
    assert after["captions"].counts["kept"] == 2 * before["captions"].counts["kept"] == 6


def add_file(folder: Path, host: str) -> None:
    """Three pairs of a host."""
    folder.mkdir(parents=True)
    (folder / f"{host}.warc.gz").write_bytes(simple(3, host=host).bytes())


def label(uri: str) -> str:
    """Month and host of a source."""
    return "/".join(Path(uri.removesuffix(".warc.gz")).parts[-2:])


def made(home: Path) -> dict[str, Manifest]:
    """What the stages have now."""
    store = Store(Environment(home=home).store_url)
    found = {stage: latest(store, "monthly", stage) for stage in STAGES}
    return {stage: manifest for stage, manifest in found.items() if manifest}


def units(manifest: Manifest) -> set[Unit]:
    """Everything that a stage has made."""
    return {unit for output in manifest.outputs.values() for unit in output.units}


def schedule(
    server: str, deployment: dict[str, Any], parameters: dict[str, Any], every: int
) -> None:
    """Have a deployment run soon (the scheduler must have seen it by then), and again and again."""
    starts = (datetime.now(UTC) + timedelta(seconds=SOON)).isoformat()
    wanted = {"interval": every, "anchor_date": starts, "timezone": "UTC"}
    content = json.dumps([{"schedule": wanted, "active": True, "parameters": parameters}])
    request = urllib.request.Request(
        f"{server}/deployments/{deployment['id']}/schedules",
        content.encode(), {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201


def completed(server: str, deployment: dict[str, Any], count: int) -> list[list[tuple[str, str]]]:
    """What became of the stages in each scheduled run that has ended well, in order of start."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        runs = [one for one in asked(server, "flow_runs/filter") if one["start_time"]]
        scheduled = [
            one
            for one in runs
            if one["deployment_id"] == deployment["id"] and one["auto_scheduled"]
        ]
        assert not {"FAILED", "CRASHED"} & {one["state_type"] for one in scheduled}, scheduled
        ended = [one for one in scheduled if one["state_type"] == "COMPLETED"]
        if len(ended) >= count:
            return [stages_of(server, one, runs) for one in sorted(ended, key=_started)]
        time.sleep(0.5)
    raise AssertionError(f"{count} runs have not ended after {PATIENCE} s: {scheduled}")


def _started(run: dict[str, Any]) -> str:
    return str(run["start_time"])


def stages_of(
    server: str, run: dict[str, Any], runs: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Name and state of each stage of a run; they belong to the flow that it called."""
    tasks = asked(server, "task_runs/filter")
    parents = {one["id"] for one in tasks if one["flow_run_id"] == run["id"]}
    called = {one["id"] for one in runs if one["parent_task_run_id"] in parents}
    return [(one["name"], one["state_name"]) for one in tasks if one["flow_run_id"] in called]
