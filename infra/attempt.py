"""One attempt at a fingerprint: its lease, its own state folder, its scratch folder.

An attempt writes only under its own epoch. What an earlier one left is copied in at the start;
files under `frozen/` never change once written, so they are linked and cost nothing.

    partial/<fingerprint>/<epoch>/state/…        what a next attempt resumes from
    partial/<fingerprint>/<epoch>/state.json     its list of files, on stores that are not local
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from infra.environment import Environment
from infra.lease import Lease
from infra.store import Store, hash_file
from infra.work import FROZEN


class Attempt:
    """A leased attempt; close it whatever happens, finish it when its manifest is published."""

    def __init__(self, store: Store, environment: Environment, fingerprint: str) -> None:
        self.store = store
        self.lease = Lease.take(store, fingerprint)
        self._fingerprint = fingerprint
        base = Path(store.root) if store.is_local else environment.home
        self._base = base / "partial" / fingerprint
        self._folder = self._base / f"{self.lease.epoch:06d}"
        self.state = self._folder / "state"
        self.scratch = self._folder / "scratch"
        self._saved: dict[str, str] = {}
        try:
            self._restore()
            self.state.mkdir(parents=True, exist_ok=True)
        except BaseException:  # a full disk; who comes next must not wait for this one
            shutil.rmtree(self._folder, ignore_errors=True)
            self.lease.release()
            raise

    def save(self, state: Path) -> None:
        """Bring the state to the store; nothing to do where the state folder lies in it."""
        if self.store.is_local:
            return
        listed = {}
        for path in sorted(p for p in state.rglob("*") if p.is_file()):
            relative = path.relative_to(state).as_posix()
            listed[relative] = self._upload(path, relative)
        self.store.write(f"{self._remote(self.lease.epoch)}/state.json", listed)

    def finish(self) -> None:
        """Forget everything partial: the manifest is published."""
        self.lease.release()
        self.store.delete(f"partial/{self._fingerprint}")
        shutil.rmtree(self._base, ignore_errors=True)

    def close(self) -> None:
        """Leave the state for the next attempt."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.lease.release()

    def _remote(self, epoch: int) -> str:
        return f"partial/{self._fingerprint}/{epoch:06d}"

    def _upload(self, path: Path, relative: str) -> str:
        # A frozen file that is there already is not read again.
        if relative.startswith(f"{FROZEN}/") and relative in self._saved:
            return self._saved[relative]
        sha256, _ = hash_file(path)
        if self._saved.get(relative) != sha256:
            target = self.store.path(f"{self._remote(self.lease.epoch)}/state/{relative}")
            self.store.filesystem.put_file(str(path), target)
        self._saved[relative] = sha256
        return sha256

    def _restore(self) -> None:
        """Take over the newest state that an earlier attempt left whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for epoch in range(self.lease.epoch - 1, 0, -1):
            earlier = self._base / f"{epoch:06d}"
            if (earlier / "state").is_dir():
                taken = self._folder / "taken"
                shutil.rmtree(taken, ignore_errors=True)
                shutil.copytree(earlier / "state", taken, copy_function=_take)
                taken.rename(self.state)  # half a copy never looks like a state
                shutil.rmtree(earlier, ignore_errors=True)
                return
            if not self.store.is_local and self._download(epoch):
                return

    def _download(self, epoch: int) -> bool:
        listed = self.store.read(f"{self._remote(epoch)}/state.json")
        if listed is None:
            return False
        taken = self._folder / "taken"
        shutil.rmtree(taken, ignore_errors=True)
        for relative, sha256 in listed.items():
            target = taken / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            there = self.store.path(f"{self._remote(epoch)}/state/{relative}")
            self.store.filesystem.get_file(there, str(target))
            if hash_file(target)[0] != sha256:
                # Saved again while this snapshot's list was still the old one, or altered.
                shutil.rmtree(taken)
                return False
        taken.mkdir(parents=True, exist_ok=True)
        taken.rename(self.state)
        return True


def _take(source: str, target: str) -> None:
    if f"/{FROZEN}/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
