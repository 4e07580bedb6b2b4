"""The command line as a user has it, on a home of its own, and what it may leave running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
# As the installed `tapir`, and it knows the stages that are made for tests.
_MAIN = "import tests.conftest; from flows.cli import main\nif __name__ == '__main__': main()"
_PATIENCE = 10.0  # seconds; guards need a moment to notice a kill, and to kill


def _heed_interrupts() -> None:
    """Undo what a shell does to its jobs in the background, of which the tests may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Tapir:
    """The command line, with a home and a declaration in one folder."""

    def __init__(self, folder: Path, declaration: str, server: str | None = None) -> None:
        self.folder = folder
        self.server = server  # URL of a Prefect server; the command line starts its own without
        self.home = folder / "home"
        self.file = folder / "pipeline.yaml"
        self.file.write_text(declaration)
        self.script = folder / "tapir.py"
        self.script.write_text(_MAIN)

    def start(self, *arguments: str, code: Path = ROOT) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, with the code of a checkout."""
        environment = {**os.environ, "PYTHONPATH": str(code), "TAPIR_HOME": str(self.home)}
        if self.server:
            environment["PREFECT_API_URL"] = self.server
        return subprocess.Popen(
            [sys.executable, str(self.script), *arguments], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=_heed_interrupts,  # noqa: PLW1509
        )  # fmt: skip

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run a command to its end; what it said."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=400)
        assert process.returncode == status, out + err
        return out + err

    def json(self, *arguments: str, code: Path = ROOT) -> Any:
        """What a reading command says with `--json`."""
        process = self.start(*arguments, "--json", code=code)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        return json.loads(out)

    def states(self, *arguments: str, code: Path = ROOT) -> dict[str, str]:
        """What `plan` says of each stage."""
        planned = self.json("plan", str(self.file), *arguments, code=code)
        return {stage["name"]: stage["state"] for stage in planned["stages"]}

    def left_running(self) -> list[str]:
        """Command lines of processes that still have to do with the home, after a moment."""
        deadline = time.monotonic() + _PATIENCE
        while (found := running_in(self.home)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def running_in(home: Path) -> list[str]:
    """Command lines of processes that are told of a home, or work in it or on a file of it."""
    lines = []
    for process in psutil.process_iter(["cmdline", "environ", "cwd", "status"]):
        info = process.info
        command = " ".join(info["cmdline"] or [])
        told = (info["environ"] or {}).get("TAPIR_HOME") == str(home)
        there = str(home) in command or (info["cwd"] or "").startswith(str(home))
        if (told or there) and info["status"] != psutil.STATUS_ZOMBIE:
            lines.append(command)
    return lines


def kill(process: psutil.Process, whole_tree: bool) -> None:
    """SIGKILL for a process, and for all below it; none has the time to see another one die."""
    stopped: list[psutil.Process] = []
    while whole_tree and (new := [one for one in _family(process) if one not in stopped]):
        for one in new:  # stopped, it starts no other
            _try(one.suspend)
        stopped += new
    for one in stopped or [process]:
        _try(one.kill)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _try(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
        send()
