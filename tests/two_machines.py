"""Two machines on one: network namespaces that reach each other over one link, and nothing else.

Each has an interface `veth0` and an address of its own; files and processes are shared. Needs root
and iproute2 (`why_not` says what is missing). Bytes are those that the link counts, headers and
all; a rate limits each direction (tc's token bucket).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTERFACE = "veth0"


@dataclass(frozen=True)
class Machine:
    """One of the two."""

    namespace: str
    address: str

    def run(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program on this machine; `env` as for Popen."""
        inside = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.Popen(inside, env=None if env is None else dict(env), **options)

    def processes(self) -> list[int]:
        """All that run on this machine, by process id."""
        listed = _ip("netns", "pids", self.namespace)
        return [int(pid) for pid in listed.split()]

    def cut_off(self) -> None:
        """Take its end of the link down: nothing comes or goes, and nobody is told."""
        _ip("-n", self.namespace, "link", "set", INTERFACE, "down")

    def sent(self) -> int:
        """Bytes that this machine has put on the link."""
        counter = f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"
        return int(_run("ip", "netns", "exec", self.namespace, "cat", counter))


@dataclass(frozen=True)
class TwoMachines:
    """Machines 0 and 1, and the link between them."""

    first: Machine
    second: Machine

    @property
    def address(self) -> str:
        """Where machine 0 is reached."""
        return self.first.address

    def __iter__(self) -> Iterator[Machine]:
        return iter((self.first, self.second))

    def sent(self) -> int:
        """Bytes over the link so far, in both directions."""
        return self.first.sent() + self.second.sent()


def why_not() -> str | None:
    """Why there can be no two machines here, or None if there can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} of iproute2 is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"tapir-try-{os.getpid()}"
    tried = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@contextmanager
def two_machines(rate: str | None = None) -> Iterator[TwoMachines]:
    """Two machines, until the end of the block, where all that still runs on them is killed.

    Args:
        rate: of the link in each direction, as tc writes it (`200mbit`); unlimited if None.
    """
    names = [f"tapir-{os.getpid()}-{k}" for k in range(2)]
    machines = TwoMachines(*(Machine(n, f"10.77.0.{k}") for k, n in enumerate(names, start=1)))
    try:
        _connect(machines, rate)
        yield machines
    finally:
        for machine in machines:
            _remove(machine)


def _connect(machines: TwoMachines, rate: str | None) -> None:
    first, second = machines
    for machine in machines:
        _ip("netns", "add", machine.namespace)
    # The pair is made inside: a name in the outer namespace could be taken.
    peer = ("peer", "name", INTERFACE, "netns", second.namespace)
    _ip("-n", first.namespace, "link", "add", INTERFACE, "type", "veth", *peer)
    for machine in machines:
        inside = ("-n", machine.namespace)
        _ip(*inside, "address", "add", f"{machine.address}/24", "dev", INTERFACE)
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "set", INTERFACE, "up")
        if rate is not None:
            bucket = ("tbf", "rate", rate, "burst", "256kb", "latency", "400ms")
            _run("tc", *inside, "qdisc", "add", "dev", INTERFACE, "root", *bucket)


def _remove(machine: Machine) -> None:
    if not Path("/run/netns", machine.namespace).exists():
        return
    deadline = time.monotonic() + 10
    while (left := machine.processes()) and time.monotonic() < deadline:
        for pid in left:
            subprocess.run(["kill", "-KILL", str(pid)], capture_output=True, check=False)
        time.sleep(0.05)
    _ip("netns", "delete", machine.namespace)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
