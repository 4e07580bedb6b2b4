"""The demo's server as a process of its own, for as long as somebody needs it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.demo_web.access_log import LOG_FILE
from infra.demo_web.server import CA_FILE, HOSTS_FILE, Ports

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Serving:
    """A site that is being served: where its files are and where it listens."""

    hosts_file: Path
    ca_file: Path
    log_file: Path
    ports: Ports
    pid: int


@contextlib.contextmanager
def serve_site(folder: Path, log: Path | None = None) -> Iterator[Serving]:
    """Serve the site in `folder` from a process that ends with the block, or with this process.

    Raises:
        RuntimeError: if the server does not start, with what it said.
    """
    log = log or folder / LOG_FILE
    command = [sys.executable, "-m", "infra.demo_web", "serve", str(folder), "--log", str(log)]
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A terminal's interrupt goes to the whole group; the server ends when its stdin does.
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )
    assert process.stdin is not None
    try:
        ports = _first_line(process)
        yield Serving(folder / HOSTS_FILE, folder / CA_FILE, log, ports, process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _first_line(process: subprocess.Popen[str]) -> Ports:
    """The ports, which the server prints when it is ready."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    line = process.stdout.readline() if ready else ""
    if ready and not line:
        status = process.wait(_STOP_SECONDS)
        raise RuntimeError(f"the demo's server ended with status {status}; it said why above")
    if not ready:
        raise RuntimeError(f"the demo's server was not ready after {_START_SECONDS:.0f} s")
    return Ports(**json.loads(line))
