"""The runner as a user has it: Prefect, Dask, MLflow, the command line, kills in the middle."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.prefect_server import PrefectServer

_ROOT = Path(__file__).parents[2]
_MAIN = "import tests.conftest; from flows.cli import main\nif __name__ == '__main__': main()"

DECLARATION = """\
name: words
stages:
  words:
    task: count_words
    params: {files: ["FOLDER/*.txt"], minimum: 2}
  joined:
    task: join_words
    inputs: {words: words.kept}
"""


class Tapir:
    """The command line on a home of its own."""

    def __init__(self, folder: Path, server: str | None = None) -> None:
        self.folder = folder
        self.server = server  # URL of a Prefect server; the command line starts its own without
        self.home = folder / "home"
        self.script = folder / "tapir.py"
        self.script.write_text(_MAIN)
        self.file = folder / "words.yaml"
        self.file.write_text(DECLARATION.replace("FOLDER", str(folder)))
        for name, text in (("a", "a bb ccc"), ("b", "dd e ffff"), ("c", "gg")):
            (folder / f"{name}.txt").write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "TAPIR_HOME": str(self.home)}
        if self.server:
            environment["PREFECT_API_URL"] = self.server
        return subprocess.Popen(
            [sys.executable, str(self.script), *arguments], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run a command to its end; what it said."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=180)
        assert process.returncode == status, out + err
        return out + err

    def json(self, *arguments: str) -> Any:
        """What a reading command says with `--json`."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return json.loads(out)

    def states(self) -> dict[str, str]:
        """What `plan` says of each stage."""
        planned = self.json("plan", str(self.file))
        return {stage["name"]: stage["state"] for stage in planned["stages"]}

    def left_running(self) -> list[str]:
        """Command lines of processes that still have to do with this folder."""
        deadline = time.monotonic() + 10  # guards need a moment to notice and to kill
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _processes(self) -> list[str]:
        lines = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            home = (process.info["environ"] or {}).get("TAPIR_HOME")
            if home == str(self.home):
                lines.append(" ".join(process.info["cmdline"] or []))
        return lines


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for many runs: starting one takes most of a small run's time."""
    started = PrefectServer(tmp_path_factory.mktemp("prefect"))
    started.wait()
    yield started.url
    started.process.terminate()


@pytest.fixture
def tapir(tmp_path: Path, server: str) -> Tapir:
    return Tapir(tmp_path, server)


def test_a_pipeline_runs_is_cached_planned_traced_and_verified(tmp_path: Path) -> None:
    tapir = Tapir(tmp_path)
    said = tapir("run", str(tapir.file))
    assert "words: done" in said
    assert "joined: done" in said
    assert tapir.states() == {"words": "cached", "joined": "cached"}
    said = tapir("run", str(tapir.file))
    assert "words: cached" in said
    assert "joined: cached" in said
    assert _prefect_states(tapir)["Cached"] == 2
    plan = tapir.json("plan", str(tapir.file), "--set", "words.minimum=3")
    words = plan["stages"][0]
    assert words["because"] == [{"what": "params.minimum", "old": 2, "new": 3}]
    assert "all files are as they were made" in tapir("verify", "words/joined")
    trace = tapir("trace", "words/joined")
    assert "a.txt" in trace
    assert (tapir.home / "reports" / "words" / "index.html").exists()


def _prefect_states(tapir: Tapir) -> Counter[str]:
    with sqlite3.connect(tapir.home / "prefect" / "prefect.db") as database:
        rows = database.execute("select state_name from task_run").fetchall()
    return Counter(name for (name,) in rows)


def test_a_failing_stage_is_retried_and_what_does_not_need_it_finishes(tapir: Tapir) -> None:
    extra = "  flaky:\n    task: fail_words\n    inputs: {words: words.kept}\n"
    extra += "  broken:\n    task: fail_words\n    inputs: {words: words.kept}\n"
    extra += "    params: {permanent: true}\n"
    tapir.file.write_text(tapir.file.read_text() + extra)
    said = tapir("run", str(tapir.file), status=1)
    assert "broken failed: PermanentError: nothing is left to train on" in said
    assert "flaky: retrying" in said
    assert "broken: retrying" not in said
    states = tapir.states()
    assert states == {"words": "cached", "joined": "cached", "flaky": "cached", "broken": "run"}


def test_a_damaged_unit_is_made_again_within_the_run(tapir: Tapir) -> None:
    tapir("run", str(tapir.file))
    unit = tapir.json("trace", "words/words")["chain"][0]["outputs"]["kept"]["units"][0]
    blob = tapir.home / "store" / "blobs" / unit["sha256"][:2] / unit["sha256"]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"bb", b"xx"))
    assert unit["name"] in tapir("verify", "words/joined", status=1)
    said = tapir("run", str(tapir.file), "--set", "joined.separator=_")
    assert "is damaged" in said
    assert "joined: done" in said
    assert "all files are as they were made" in tapir("verify", "words/joined")


@pytest.mark.parametrize("whole_tree", [True, False], ids=["whole tree", "only the parent"])
def test_killed_runs_leave_no_orphans_and_the_next_gives_the_same(
    tapir: Tapir, tmp_path: Path, whole_tree: bool
) -> None:
    (tmp_path / "calm").mkdir()
    calm = Tapir(tmp_path / "calm", tapir.server)
    calm.file.write_text(calm.file.read_text().replace(str(calm.folder), str(tapir.folder)))
    calm("run", str(calm.file))
    moments = random.Random(7 + whole_tree)
    for _ in range(2):
        process = tapir.start("run", str(tapir.file), "--set", "words.pause=0.5")
        time.sleep(moments.uniform(3.0, 9.0))
        if whole_tree:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert tapir.left_running() == []
    tapir("run", str(tapir.file))
    assert _outputs(tapir) == _outputs(calm)
    assert "all files are as they were made" in tapir("verify", "words/joined")


def _outputs(tapir: Tapir) -> dict[str, str]:
    return {
        f"{manifest['stage']}.{name}": output["digest"]
        for manifest in tapir.json("trace", "words/joined")["chain"]
        for name, output in manifest["outputs"].items()
    }


def test_errors_in_a_declaration_are_one_sentence(tapir: Tapir) -> None:
    said = tapir("run", str(tapir.file), "--set", "words.minimun=3", status=2)
    assert said.count("\n") == 1
    assert "did you mean 'minimum'?" in said


def test_an_edit_is_accepted_with_its_reason(tapir: Tapir) -> None:
    tapir("run", str(tapir.file))
    reason = ("--because", "no word has one letter that matters")
    tapir("accept", f"{tapir.file}/words", *reason, "--set", "words.minimum=1")
    plan = tapir.json("plan", str(tapir.file), "--set", "words.minimum=1")
    assert [stage["state"] for stage in plan["stages"]] == ["cached", "cached"]
    assert "no word has one letter that matters" in tapir("trace", "words/words")
