"""The table of URLs: which URL a key stands for, and which chunks of a collection want it.

The stage writes it, the gateway reads it. A URL that several chunks want is fetched once; its bytes
are kept until the last of them is finished.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Self

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (key TEXT PRIMARY KEY, url TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (key TEXT, chunk TEXT, PRIMARY KEY (key, chunk)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS wanted_by_chunk ON wanted (chunk);
"""
_PATIENCE = 30.0  # seconds to wait for the other process's transaction


class UrlTable:
    """URLs by key in one SQLite file; use it in a `with` statement."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        mode = "rwc" if write else "ro"
        self._database = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, timeout=_PATIENCE)
        if write:
            self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def want(self, chunk: str, urls: Iterable[tuple[str, str]]) -> None:
        """Note the (key, URL) pairs that a chunk wants; noting them again changes nothing."""
        entries = list(urls)
        with self._database:
            self._database.executemany("INSERT OR IGNORE INTO urls VALUES (?, ?)", entries)
            rows = ((key, chunk) for key, _ in entries)
            self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?)", rows)

    def url(self, key: str) -> str | None:
        """The URL of a key, or None if there is none."""
        row = self._database.execute("SELECT url FROM urls WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def release(self, chunk: str) -> list[str]:
        """Strike a finished chunk off; the keys that no other chunk wants."""
        mine = "SELECT key FROM wanted WHERE chunk = :chunk"
        query = f"{mine} EXCEPT SELECT key FROM wanted WHERE chunk <> :chunk"
        with self._database:
            keys = [str(row[0]) for row in self._database.execute(query, {"chunk": chunk})]
            self._database.execute("DELETE FROM wanted WHERE chunk = ?", (chunk,))
        return keys
