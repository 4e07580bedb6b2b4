"""The few errors that the runner treats in their own way."""

from __future__ import annotations


class PermanentError(Exception):
    """Trying again cannot help: a bad declaration, a missing source, nothing left to train on."""


class DamagedUnit(Exception):
    """A stored unit is missing or its bytes are not those its address says."""

    def __init__(self, sha256: str, name: str, problem: str) -> None:
        super().__init__(f"unit {name} ({sha256[:12]}…) is damaged: {problem}")
        self.sha256 = sha256
        self.name = name
        self.problem = problem

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Default pickling passes the message only, and the error travels from Dask workers.
        return type(self), (self.sha256, self.name, self.problem)


class DiskFull(Exception):
    """A disk has no room left; the same work can go on once it has."""


class WorkersDied(Exception):
    """Units on which every worker process that was given them died."""


class LeaseHeld(Exception):
    """Another attempt is at work on the same fingerprint."""


class Fenced(PermanentError):
    """A newer attempt took over; this one must not write any more."""
