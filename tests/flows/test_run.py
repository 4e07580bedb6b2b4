"""The runner as a user has it: Prefect, Dask, MLflow, the command line, kills in the middle."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from flows.run import PipelineFailed
from infra.errors import PermanentError
from tests.flows.command import Tapir, kill

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


def words(folder: Path, server: str | None = None, texts: Path | None = None) -> Tapir:
    """A small pipeline over text files, which lie in the same folder if not elsewhere."""
    for name, text in (("a", "a bb ccc"), ("b", "dd e ffff"), ("c", "gg")):
        (folder / f"{name}.txt").write_text(text)
    return Tapir(folder, DECLARATION.replace("FOLDER", str(texts or folder)), server)


@pytest.fixture
def tapir(tmp_path: Path, server: str) -> Tapir:
    return words(tmp_path, server)


def test_a_pipeline_runs_is_cached_planned_traced_and_verified(tmp_path: Path) -> None:
    tapir = words(tmp_path)
    said = tapir("run", str(tapir.file))
    assert "words: done" in said
    assert "joined: done" in said
    assert tapir.states() == {"words": "cached", "joined": "cached"}
    said = tapir("run", str(tapir.file))
    assert "words: cached" in said
    assert "joined: cached" in said
    assert _prefect_states(tapir)["Cached"] == 2
    plan = tapir.json("plan", str(tapir.file), "--set", "words.minimum=3")
    assert plan["stages"][0]["because"] == [{"what": "params.minimum", "old": 2, "new": 3}]
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


def test_a_failed_flow_says_which_stages_failed_and_why() -> None:
    long = ValueError("x " * 500)
    causes = {"clean": PermanentError("no picture is left\ndetails"), "model": long}
    said = str(PipelineFailed(causes))
    assert said.startswith("stages failed: clean (PermanentError: no picture is left), model (Valu")
    assert len(said) < 500


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
    calm = words(tmp_path / "calm", tapir.server, texts=tapir.folder)
    calm("run", str(calm.file))
    moments = random.Random(7 + whole_tree)
    for _ in range(2):
        process = tapir.start("run", str(tapir.file), "--set", "words.pause=0.5")
        time.sleep(moments.uniform(3.0, 9.0))
        kill(psutil.Process(process.pid), whole_tree)
        process.communicate()
        assert tapir.left_running() == []
    tapir("run", str(tapir.file))
    assert _outputs(tapir) == _outputs(calm)
    assert "all files are as they were made" in tapir("verify", "words/joined")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_stops_at_once(tapir: Tapir, number: int, status: int) -> None:
    process = tapir.start("run", str(tapir.file), "--set", "words.pause=60")
    deadline = time.monotonic() + 60
    while not list((tapir.home / "store" / "partial").glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, out + err
    assert "the same command goes on from here" in err
    assert tapir.left_running() == []


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
