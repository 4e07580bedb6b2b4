"""Bodies that may be asked for again: those of chunks that are not finished yet.

When img2dataset or the whole run is killed and comes back, what was fetched is served from here and
no site is asked twice. A body is one file named by its URL's key. Files are not synced: the journal
has each body's sha256, so one that a power failure tore is noticed and fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from infra.gateway.outcomes import Attempt


class Spool:
    """A folder of bodies by key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, body: bytes) -> None:
        """Keep a body; half a file is never seen under its name."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_bytes(body)
        partial.rename(path)

    def get(self, attempt: Attempt) -> bytes | None:
        """The body that an attempt gave, or None if it is not here whole."""
        try:
            body = self._path(attempt.key).read_bytes()
        except FileNotFoundError:
            return None
        return body if hashlib.sha256(body).hexdigest() == attempt.sha256 else None

    def remove(self, keys: list[str]) -> None:
        """Forget bodies that nobody will ask for any more."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key
