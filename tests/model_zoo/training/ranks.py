"""Ranks of a training as processes that are forked, each from one that has imported torch already.

Importing takes seconds of processor time a rank, far more than what most tests then do. A rank is a
process of its own all the same, with the environment variables that torchrun would give it, and it
can be killed; when one fails, the others are ended, as torchrun does.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[3]
_PRELOADED = ("model_zoo.training.worker", "tests.model_zoo.training.preloaded")
_context: list[ForkServerContext] = []


class Ranks:
    """Processes that run one function together; what they write goes to one file."""

    def __init__(
        self, processes: int, function: Callable[..., int | None], *arguments: object, log: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.log = log
        self.processes: list[ForkServerProcess] = []
        for rank in range(processes):
            # Alone a process is told nothing, as the launchers have it.
            own = {"RANK": rank, "WORLD_SIZE": processes, "LOCAL_RANK": rank}
            told = {name: str(value) for name, value in own.items()} if processes > 1 else {}
            process = _server().Process(
                target=_run, args=(function, arguments, {**shared, **told}, log), daemon=True
            )
            process.start()
            self.processes.append(process)

    def poll(self) -> int | None:
        """The exit status of all, or that of the first that failed; None while all is well."""
        statuses = [process.exitcode for process in self.processes]
        return next((one for one in statuses if one), None if None in statuses else 0)

    def wait(self, timeout: float = 300) -> int:
        """Until all have ended; when one has failed, the others are killed."""
        deadline = time.monotonic() + timeout
        try:
            while (status := self.poll()) is None:
                left = deadline - time.monotonic()
                assert left > 0, f"the ranks have not ended within {timeout} s: {self.said()}"
                running = [p.sentinel for p in self.processes if p.exitcode is None]
                wait(running, left)
        finally:
            self.end()
        return status

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()
            process.join()

    def said(self) -> str:
        """What they have written."""
        return self.log.read_text()[-4000:] if self.log.exists() else ""


def _server() -> ForkServerContext:
    """Forks processes; started at the first use, it ends with this process."""
    if not _context:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        before = dict(os.environ)
        os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        try:
            context.Process(target=_nothing).start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        _context.append(context)
    return _context[0]


def _nothing() -> None:
    pass


def _run(
    function: Callable[..., int | None], arguments: tuple[object, ...],
    environment: Mapping[str, str], log: Path,
) -> None:  # fmt: skip
    os.environ |= environment
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(function(*arguments))
