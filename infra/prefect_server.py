"""A Prefect server of our own for one run, on loopback, with its database in the home folder.

Prefect would start one by itself, but that one outlives a killed parent; ours is guarded. Where
`PREFECT_API_URL` names a server, that one is used.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from infra.process import Guarded, start_guarded

_STARTUP = 90.0
# Services of a standing server that a server for one run has no use for; they cost start-up time.
_OFF = (
    "PREFECT_UI_ENABLED",
    "PREFECT_SERVER_UI_ENABLED",
    "PREFECT_API_BLOCKS_REGISTER_ON_START",
    "PREFECT_SERVER_ANALYTICS_ENABLED",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED",
)


class PrefectServer:
    """A server that has been started and may not listen yet."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "prefect"
        self._folder.mkdir(parents=True, exist_ok=True)
        # Checking for migrations takes seconds; a database of this very version needs none.
        self._stamp = self._folder / f"migrated-{metadata.version('prefect')}"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = home / "logs" / "prefect.log"
        self.process = self._start()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: if it does not in time, naming its log.
        """
        deadline = time.monotonic() + _STARTUP
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not start; see {self.log}")
            time.sleep(0.05)
        self._stamp.touch()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _start(self) -> Guarded:
        environment = {**os.environ, **dict.fromkeys(_OFF, "false")}
        environment.pop("PREFECT_API_URL", None)
        environment["PREFECT_HOME"] = str(self._folder)
        environment["PREFECT__SERVER_EPHEMERAL"] = environment["PREFECT__SERVER_FINAL"] = "1"
        if self._stamp.exists() and (self._folder / "prefect.db").exists():
            environment["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"
        command = [sys.executable, "-m", "uvicorn", "--factory"]
        command += ["prefect.server.api.server:create_app", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--log-level", "error"]
        return start_guarded(command, env=environment, log=self.log)


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer | None]:
    """Start a server and point Prefect's settings at it; before Prefect is imported.

    Gives None where `PREFECT_API_URL` names a server already.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    server = PrefectServer(home)
    os.environ["PREFECT_API_URL"] = server.url
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    # A server that ends with the run cannot be sent the last log lines; the states it has.
    os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    try:
        yield server
    finally:
        del os.environ["PREFECT_API_URL"]
        server.process.terminate(grace=2.0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
