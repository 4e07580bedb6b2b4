"""Leases: at most one attempt works on a fingerprint, and a newer one fences off the older.

Each attempt writes `partial/<fingerprint>/lease-<epoch>.json` only if no such epoch is there, and
renews it; the highest epoch owns the fingerprint. An attempt writes only under its own epoch, so
one that was taken for dead and wakes up cannot touch what its successor reads.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from typing import Any

import psutil

from infra.disk import is_full_disk
from infra.errors import Fenced, LeaseHeld
from infra.store import Store

LIFETIME = 60.0  # seconds without renewal after which an owner on another machine counts as dead
_RENEWAL = 10.0


class Lease:
    """A held lease; renews itself in a thread until released."""

    def __init__(self, store: Store, fingerprint: str, epoch: int, previous: int | None) -> None:
        self.store = store
        self.folder = f"partial/{fingerprint}"
        self.epoch = epoch
        self.previous = previous
        self._owner = _owner()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")

    @classmethod
    def take(cls, store: Store, fingerprint: str) -> Lease:
        """Take the lease of a fingerprint.

        Raises:
            LeaseHeld: if a living attempt has it.
        """
        epochs = _epochs(store, fingerprint)
        top = epochs[-1] if epochs else None
        if top is not None:
            _refuse_living(_read(store, fingerprint, top), fingerprint)
        lease = cls(store, fingerprint, (top or 0) + 1, top)
        if not store.create(lease._name(), lease._text()):
            raise LeaseHeld(f"another attempt has just taken {fingerprint[:12]}…")
        lease._thread.start()
        return lease

    def check(self) -> None:
        """Raise Fenced if a newer attempt has taken over."""
        fingerprint = self.folder.removeprefix("partial/")
        epochs = _epochs(self.store, fingerprint)
        if not epochs or epochs[-1] != self.epoch:
            raise Fenced(f"attempt {self.epoch} on {fingerprint[:12]}… was replaced by another")

    def release(self) -> None:
        """Stop renewing and say that the owner has gone; the next attempt need not wait."""
        self._stop.set()
        self._thread.join()
        try:
            self.store.write(self._name(), {**self._text(), "released": True})
        except OSError as error:
            if not is_full_disk(error):
                raise
            self.store.delete(self._name())  # for which there is always room

    def _name(self) -> str:
        return f"{self.folder}/lease-{self.epoch:06d}.json"

    def _text(self) -> dict[str, Any]:
        return {**self._owner, "renewed": time.time()}

    def _renew(self) -> None:
        while not self._stop.wait(_RENEWAL):
            # A full disk, a store that is away: it may be better the next time. Whoever takes the
            # lease meanwhile is met by `check`.
            with contextlib.suppress(Exception):
                self.store.write(self._name(), self._text())


def _owner() -> dict[str, Any]:
    started = psutil.Process().create_time()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": started,
        "token": uuid.uuid4().hex,
    }


def _epochs(store: Store, fingerprint: str) -> list[int]:
    names = store.names(f"partial/{fingerprint}")
    found = [n for n in names if n.startswith("lease-") and n.endswith(".json")]
    return sorted(int(name.removeprefix("lease-").removesuffix(".json")) for name in found)


def _read(store: Store, fingerprint: str, epoch: int) -> dict[str, Any] | None:
    lease: dict[str, Any] | None = store.read(f"partial/{fingerprint}/lease-{epoch:06d}.json")
    return lease


def holder(store: Store, fingerprint: str) -> dict[str, Any] | None:
    """The lease of the living attempt that has it (host, pid); None if nobody does."""
    epochs = _epochs(store, fingerprint)
    lease = _read(store, fingerprint, epochs[-1]) if epochs else None
    return lease if lease is not None and _is_alive(lease) else None


def _is_alive(lease: dict[str, Any]) -> bool:
    if lease.get("released"):
        return False
    if lease["host"] == socket.gethostname():
        return _is_running(lease["pid"], lease["started"])
    return bool(time.time() - lease["renewed"] < LIFETIME)


def _refuse_living(lease: dict[str, Any] | None, fingerprint: str) -> None:
    if lease is not None and _is_alive(lease):
        raise LeaseHeld(
            f"process {lease['pid']} on {lease['host']} is at work on {fingerprint[:12]}…;"
            " wait for it or end it"
        )


def _is_running(pid: int, started: float) -> bool:
    """Whether that very process runs (a pid alone may have been given to another since)."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and abs(process.create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False
