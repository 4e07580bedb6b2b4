"""A program that Tapir starts ends with it, whatever ends first, with all its descendants."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.process import Guarded, ProcessFailed, start_guarded, tail, wait_for

# Starts a child in its own session, as torchrun does, then sleeps; both write down their pid.
TREE = """
    import os, pathlib, signal, subprocess, sys, time
    folder = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    (folder / "tmp").write_text(f"{os.getpid()} {child.pid}")
    (folder / "tmp").rename(folder / "pids")
    time.sleep(600)
"""


def start(code: str, tmp_path: Path, *arguments: str) -> Guarded:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return start_guarded(command, log=tmp_path / "log")


def start_tree(tmp_path: Path, kind: str) -> tuple[Guarded, list[psutil.Process]]:
    process = start(TREE, tmp_path, str(tmp_path), kind)
    wait_for(tmp_path / "pids", process, 10)
    return process, living(tmp_path)


def living(tmp_path: Path) -> list[psutil.Process]:
    return [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def dead(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_status_and_output_come_back(tmp_path: Path) -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr); exit(3)", tmp_path)
    assert process.wait(10) == 3
    assert process.poll() == 3
    assert set((tmp_path / "log").read_text().split()) == {"out", "err"}


def test_a_signal_is_told_from_a_status(tmp_path: Path) -> None:
    process = start("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert process.wait(10) == -signal.SIGKILL
    with pytest.raises(ProcessFailed, match="by signal 9"):
        process.check()


def test_failure_names_the_last_words(tmp_path: Path) -> None:
    process = start("raise SystemExit('no room on the disk')", tmp_path)
    with pytest.raises(ProcessFailed, match="no room on the disk"):
        process.check(10)


def test_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), sorted(os.environ.items()))"
    command = [sys.executable, "-I", "-c", code]
    start_guarded(command, log=tmp_path / "log", env={"ONLY": "this"}, cwd=tmp_path).check(10)
    assert str(tmp_path) in tail(tmp_path / "log")
    assert "('ONLY', 'this')" in tail(tmp_path / "log")
    assert "PATH" not in tail(tmp_path / "log")


def test_waiting_too_long_does_not_end_it(tmp_path: Path) -> None:
    with start("import time; time.sleep(600)", tmp_path) as process:
        with pytest.raises(TimeoutError):
            process.wait(0.1)
        assert process.poll() is None


@pytest.mark.parametrize("kind", ["gentle", "stubborn"])
def test_terminate_ends_descendants_in_other_sessions(tmp_path: Path, kind: str) -> None:
    process, tree = start_tree(tmp_path, kind)
    started = time.monotonic()
    process.terminate(grace=0.3)
    assert all(dead(one) for one in tree)
    assert time.monotonic() - started < 3


def test_leftovers_of_a_program_that_ended_are_ended(tmp_path: Path) -> None:
    code = """
        import pathlib, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path(sys.argv[1], "pids").write_text(str(child.pid))
    """
    assert start(code, tmp_path, str(tmp_path)).wait(10) == 0
    pid = int((tmp_path / "pids").read_text())
    assert not psutil.pid_exists(pid)


def test_killing_only_the_parent_ends_all(tmp_path: Path) -> None:
    """The parent gets SIGKILL, so nothing of its own can clean up."""
    code = """
        import sys, time
        from pathlib import Path
        from infra.process import start_guarded
        kept = start_guarded([sys.executable, "-c", sys.argv[2], sys.argv[1], "stubborn"],
                             log=Path(sys.argv[1], "log"))
        Path(sys.argv[1], "guard").write_text(str(kept.pid))
        time.sleep(600)
    """
    arguments = [str(tmp_path), textwrap.dedent(TREE)]
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=root,
        env={"PYTHONPATH": root},
    )
    assert eventually((tmp_path / "pids").exists, 10)
    tree = [*living(tmp_path), psutil.Process(int((tmp_path / "guard").read_text()))]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert eventually(lambda: all(dead(one) for one in tree))


def test_killing_the_guard_ends_the_program(tmp_path: Path) -> None:
    process, tree = start_tree(tmp_path, "stubborn")
    try:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(5) == -signal.SIGKILL
        assert eventually(lambda: dead(tree[0]))
    finally:
        tree[1].kill()


def test_a_program_that_dies_before_it_is_ready_is_reported(tmp_path: Path) -> None:
    process = start("raise SystemExit('port taken')", tmp_path)
    with pytest.raises(ProcessFailed, match="port taken"):
        wait_for(tmp_path / "never", process, 10)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_losing_the_object_ends_the_program(tmp_path: Path) -> None:
    process, tree = start_tree(tmp_path, "gentle")
    del process
    assert eventually(lambda: all(dead(one) for one in tree))
