"""The journal: every attempt at a URL, on disk before anybody is told what came of it.

SQLite with a write-ahead log: a transaction that a SIGKILL or a power failure tears is gone whole,
so there is no torn line to mend, and looking a key up needs no memory that grows with the number of
URLs. Rows are only ever added; the last one for a key is what stands. Commits are shared: attempts
that end while one commit is on its way to the disk go into the next.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra.gateway.outcomes import COLUMNS, Attempt, Outcome

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS attempts (seq INTEGER PRIMARY KEY, {", ".join(COLUMNS)});
CREATE INDEX IF NOT EXISTS by_key ON attempts (key, seq);
"""
_INSERT = f"INSERT INTO attempts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM attempts"
# Deferred rows (`Attempt.deferred`) since the last one of `JournalReader.reopen`, which is the only
# one with attempt 0 that is not deferred.
_WAITED = """
SELECT SUM(not_before - started) FROM attempts
WHERE key = :key AND outcome = 'rate_limited' AND COALESCE(status, 0) < 400 AND seq > COALESCE(
    (SELECT MAX(seq) FROM attempts WHERE key = :key AND attempt = 0 AND not_before IS NULL), 0
)
"""
_GATHERING = 0.004  # seconds for which a commit waits for company; a request takes longer by far
_VARIABLES = 500  # in one query; SQLite has had bounds of 999 and more
_PATIENCE = 30.0  # seconds to wait for another process's transaction

_Batch = list[tuple[Attempt, asyncio.Future[None]]]


class Journal:
    """The gateway's side of the journal: it alone writes attempts."""

    def __init__(self, path: Path) -> None:
        self._writer = _connect(path)
        self._writer.executescript(_SCHEMA)
        self._reader = _connect(path)
        self._thread = ThreadPoolExecutor(1, "journal")
        self._waiting: _Batch = []
        self._committing: asyncio.Task[None] | None = None

    def last(self, key: str) -> Attempt | None:
        """The attempt that stands for a URL, or None if it was never asked for."""
        query = f"{_SELECT} WHERE key = ? ORDER BY seq DESC LIMIT 1"
        row = self._reader.execute(query, (key,)).fetchone()
        return None if row is None else _attempt(row)

    def waited(self, key: str) -> float:
        """Seconds for which a URL was deferred until now, since it was first asked for."""
        return float(self._reader.execute(_WAITED, {"key": key}).fetchone()[0] or 0.0)

    async def append(self, attempt: Attempt) -> None:
        """Add an attempt; returns when it is on disk.

        Raises:
            sqlite3.Error: if it cannot be written, or another attempt of the same commit cannot.
            ValueError: if one of them holds text that cannot be stored.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((attempt, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_waiting())
        await done

    async def close(self) -> None:
        """Write what waits, and close the file."""
        if self._committing is not None:
            await self._committing
        self._thread.shutdown()
        self._writer.close()
        self._reader.close()

    async def _commit_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(_GATHERING)
            batch, self._waiting = self._waiting, []
            rows = [tuple(vars(attempt).values()) for attempt, _ in batch]
            try:
                await loop.run_in_executor(self._thread, self._commit, rows)
            except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
                _tell(batch, error)
            else:
                _tell(batch, None)

    def _commit(self, rows: list[tuple[Any, ...]]) -> None:
        with self._writer:
            self._writer.executemany(_INSERT, rows)


class JournalReader:
    """The journal as the stage reads it, also while the gateway writes; a `with` statement."""

    def __init__(self, path: Path) -> None:
        self._database = _connect(path)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *failure: object) -> None:
        self._database.close()

    def standing(self, keys: Sequence[str]) -> dict[str, Attempt]:
        """The last attempt at each URL that was asked for."""
        return {attempt.key: attempt for attempt in self.attempts(keys)}

    def attempts(self, keys: Sequence[str]) -> Iterator[Attempt]:
        """All attempts at some URLs; those at one URL in order."""
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            marks = ", ".join("?" * len(some))
            query = f"{_SELECT} WHERE key IN ({marks}) ORDER BY key, seq"
            for row in self._database.execute(query, some):
                yield _attempt(row)

    def all_attempts(self) -> Iterator[Attempt]:
        """Every attempt, in the order of keys, those at one URL in order."""
        for row in self._database.execute(f"{_SELECT} ORDER BY key, seq"):
            yield _attempt(row)

    def reopen(self, keys: Sequence[str]) -> None:
        """Let these URLs be asked for as often as if they had never been."""
        fresh = {"attempt": 0, "permanent": False, "requested": False, "not_before": None}
        rows = [tuple({**vars(one), **fresh}.values()) for one in self.standing(keys).values()]
        with self._database:
            self._database.executemany(_INSERT, rows)

    def rows(self) -> int:
        """How many attempts there are."""
        return int(self._database.execute("SELECT MAX(seq) FROM attempts").fetchone()[0] or 0)

    def counts(self) -> dict[str, int]:
        """How many URLs ended with each outcome, and `requests`: how many requests were made."""
        query = (
            "SELECT outcome, COUNT(*) FROM (SELECT outcome, MAX(seq) FROM attempts GROUP BY key)"
        )
        found = {str(n): int(c) for n, c in self._database.execute(f"{query} GROUP BY outcome")}
        query = "SELECT COUNT(*) FROM attempts WHERE requested"
        return {**found, "requests": int(self._database.execute(query).fetchone()[0])}


def _tell(batch: _Batch, error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue  # who waited has left
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _connect(path: Path) -> sqlite3.Connection:
    # The writer's thread is not the one that opened the file; no two threads use it at a time.
    database = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    return database


def _attempt(row: tuple[Any, ...]) -> Attempt:
    attempt = Attempt(*row)
    attempt.outcome = Outcome(attempt.outcome)
    attempt.permanent, attempt.requested = bool(attempt.permanent), bool(attempt.requested)
    return attempt
