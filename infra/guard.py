"""The process that stands between Tapir and a program it started, and outlives neither.

Run by path (`python -I -S guard.py COMMAND…`) and on the standard library only, so that it starts
in some 20 ms. It holds the read end of a pipe whose write end only the parent has: when the parent
dies, by whatever signal, the pipe ends and everything below the guard is killed. Being a subreaper
it also finds descendants that moved into a session of their own, as torchrun's workers do.

The pipe carries at most one line: the seconds of grace between SIGTERM and SIGKILL. A parent that
was killed says nothing, and then there is no grace: its successor may start at once, and must not
find anything still writing.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.01


class Guard:
    """One command and all processes that descend from it."""

    def __init__(self, command: list[str]) -> None:
        self.status: int | None = None
        self._wake = _readable_on_sigchld()
        libc = ctypes.CDLL(None, use_errno=True)
        _prctl(libc, PR_SET_CHILD_SUBREAPER, 1)
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            # A killed guard cannot clean up; then at least the command goes with it. There is one
            # thread here, so the function may run between fork and exec.
            preexec_fn=lambda: _prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )

    def run(self) -> int:
        """Wait for the end of the command or of the pipe; the exit status, 128 + n for signal n."""
        grace = 0.0
        while self.status is None:
            ready, _, _ = select.select([0, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            elif 0 in ready:
                grace = float(os.read(0, 64) or 0.0)
                break
        self._end_all(grace if self.status is None else 0.0)
        status = self.status or 0
        return status if status >= 0 else 128 - status

    def _end_all(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if grace > 0:
            _send(descendants(os.getpid()), signal.SIGTERM)
        while left := descendants(os.getpid()):
            if time.monotonic() >= deadline:
                _send(left, signal.SIGKILL)
            time.sleep(_POLL)
            self._reap()
        self._reap()

    def _reap(self) -> None:
        """Take the statuses of all that ended: the command, and orphans that fell to the guard."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                self.status = self._child.returncode = os.waitstatus_to_exitcode(status)


def descendants(root: int) -> list[int]:
    """Living processes below `root`, read from /proc; zombies count as dead."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _state_and_parent(entry)) is not None:
            children.setdefault(found[1], []).append(int(entry))
            if found[0] == "Z":
                zombies.add(int(entry))
    below, queue = [], [root]
    while queue:
        found_below = children.get(queue.pop(), [])
        queue += found_below
        below += found_below
    return [pid for pid in below if pid not in zombies]


def _state_and_parent(pid: str) -> tuple[str, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in parentheses and may itself hold some.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None  # it ended while the folder was read
    return (fields[0].decode(), int(fields[1])) if fields else None


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it ended by itself, which is what was wanted


def _readable_on_sigchld() -> int:
    """A descriptor that becomes readable when a child ends."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    # The guard learns of the end through the pipe alone. Handlers and not SIG_IGN, which the
    # command would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.exit(Guard(sys.argv[1:]).run())
