"""Programs that Tapir starts (img2dataset, the fetch gateway, torchrun) and that die with it.

Each runs below a guard (`infra.guard`) in a session of its own, so that no signal meant for Tapir
reaches it by accident, and ends with everything it started as soon as Tapir does: at a normal end,
at an exception, and when Tapir is killed with SIGKILL. Output goes to a log file.

PR_SET_PDEATHSIG alone would not do: it follows the thread that started the child, and a worker
thread of Prefect or Dask may end long before the work does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_GUARD = Path(__file__).with_name("guard.py")


class ProcessFailed(Exception):
    """A program ended with another status than 0; the message ends with the tail of its log."""


class Guarded:
    """A running program; leaving its `with` block, or losing the object, ends it."""

    def __init__(self, guard: subprocess.Popen[bytes], name: str, log: Path) -> None:
        self._guard = guard
        self.name = name
        self.log = log
        # A lost Popen lives on inside `subprocess` with its pipe; this closes the pipe in any case.
        weakref.finalize(self, _close, guard)

    @property
    def pid(self) -> int:
        """Process id of the guard, which is also the id of its session."""
        return self._guard.pid

    def poll(self) -> int | None:
        """The program's exit status, -n if signal n ended it; None while it runs."""
        return _status(self._guard.poll())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and say the exit status, as `poll`.

        Raises:
            TimeoutError: if it still runs after `timeout` seconds; it is not ended by that.
        """
        try:
            status = _status(self._guard.wait(timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout} s") from None
        assert status is not None
        return status

    def ends_within(self, seconds: float) -> bool:
        """Wait that long for the end, and say whether it came."""
        with contextlib.suppress(TimeoutError):
            self.wait(seconds)
        return self.poll() is not None

    def check(self, timeout: float | None = None) -> None:
        """Wait for the end, which must be a good one.

        Raises:
            TimeoutError: as `wait`.
            ProcessFailed: if the exit status is not 0.
        """
        status = self.wait(timeout)
        if status != 0:
            how = f"with status {status}" if status > 0 else f"by signal {-status}"
            raise ProcessFailed(f"{self.name} ended {how}; its last words:\n{tail(self.log)}")

    def terminate(self, grace: float = 2.0) -> int:
        """End it and all it started: SIGTERM, and after `grace` seconds SIGKILL."""
        _close(self._guard, f"{grace}\n".encode())
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.terminate()


def start_guarded(
    args: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Guarded:
    """Start a program that ends when this process does.

    Args:
        args: the program and its arguments.
        log: where its output goes (appended, standard error as well).
        env: its whole environment; this process's own if None.
        cwd: its working directory.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # -I -S: the guard needs the standard library only and must not pick up anything else.
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), *args],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    return Guarded(guard, Path(args[0]).name, log)


def wait_for(condition: Path, process: Guarded, timeout: float) -> None:
    """Wait until a file is there that a program writes when it is ready.

    Raises:
        ProcessFailed: if the program ends first.
        TimeoutError: if neither happens within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition.exists():
        if process.poll() is not None:
            raise ProcessFailed(f"{process.name} ended before it was ready:\n{tail(process.log)}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.name} was not ready after {timeout} s")
        time.sleep(0.02)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _close(guard: subprocess.Popen[bytes], last_words: bytes = b"") -> None:
    assert guard.stdin is not None
    if not guard.stdin.closed:
        with contextlib.suppress(BrokenPipeError):  # the guard has ended already
            guard.stdin.write(last_words)
            guard.stdin.close()


def _status(guard: int | None) -> int | None:
    # A guard that was itself killed reports a negative status; both mean that a signal ended it.
    return guard if guard is None or guard <= 128 else 128 - guard
