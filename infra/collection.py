"""A collection: URLs fetched by img2dataset through the gateway, in passes, until each is settled.

The truth about a URL is in the gateway's journal; img2dataset's word is taken for bytes only. So it
does not matter which of the two is killed, or when: the next round asks for what has no outcome, or
whose bytes did not arrive, and the gateway answers from its spool where it has asked already.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pyarrow as pa

from infra.disk import has_room
from infra.gateway.client import RunningGateway
from infra.gateway.config import GatewayConfig
from infra.gateway.journal import JournalReader
from infra.gateway.outcomes import Attempt
from infra.gateway.spool import Spool
from infra.gateway.table import UrlTable
from infra.img2dataset import Result, Settings, read_results, start_img2dataset
from infra.process import Guarded, ProcessFailed, tail
from infra.tables import write_table

_POLL = 0.5  # seconds
_IDLE_ROUNDS = 3  # in a row that bring nothing; then something is wrong and nobody is helped
_STALL = 300.0  # seconds in which not one request ends; longer than any bound of the gateway

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
# As `infra.gateway.outcomes.Attempt`, which says what the columns mean.
ATTEMPT_SCHEMA = pa.schema(
    [
        pa.field(entry.name, _TYPES.get(str(entry.type).partition(" ")[0], pa.string()))
        for entry in dataclasses.fields(Attempt)
    ]
)


@dataclass(frozen=True)
class Fetched:
    """What came of some URLs: the attempt that stands for each, and where the bytes lie."""

    attempts: dict[str, Attempt]
    results: dict[str, Result]


@dataclass
class Collection:
    """The URLs of one stage; use it in a `with` statement, within which the gateway runs.

    Attributes:
        config: the gateway's; its table, journal and spool outlive this process.
        settings: img2dataset's.
        log: folder of the two programs' logs.
    """

    config: GatewayConfig
    settings: Settings
    log: Path
    _table: UrlTable = field(init=False)
    _journal: JournalReader = field(init=False)
    _gateway: RunningGateway = field(init=False)
    _open: ExitStack = field(init=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._table = stack.enter_context(UrlTable(self.config.table, write=True))
            self._journal = stack.enter_context(JournalReader(self.config.journal))
            running = RunningGateway(self.config, self.log / "gateway.log")
            self._gateway = stack.enter_context(running)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def want(self, chunk: str, urls: Mapping[str, str]) -> None:
        """Note the URLs, by key, that a chunk wants; their bytes are kept until it is released."""
        self._table.want(chunk, urls.items())

    def release(self, chunk: str) -> None:
        """A chunk is finished for good: forget the bytes that no other one wants."""
        Spool(self.config.spool).remove(self._table.release(chunk))

    def reopen(self, keys: Sequence[str]) -> None:
        """Forget that these URLs were asked for: the next attempt of the stage asks again."""
        self._journal.reopen(keys)

    def write_attempts(self, path: Path) -> int:
        """Write every attempt to a parquet file, with times and addresses; how many they are."""
        rows = (vars(attempt) for attempt in self._journal.all_attempts())
        return write_table(path, rows, ATTEMPT_SCHEMA)

    def counts(self) -> dict[str, int]:
        """How many URLs stand at each outcome, and `requests`."""
        return self._journal.counts()

    def fetch(
        self, urls: Mapping[str, str], scratch: Path, watch: Callable[[int], None]
    ) -> Fetched:
        """Settle every URL: an image whose bytes are here, or an outcome that stands.

        Args:
            urls: by key; each is wanted by some chunk.
            scratch: folder for img2dataset's output, in which the results lie.
            watch: told how many requests have ended, now and then.

        Raises:
            ProcessFailed: if the gateway ends, or img2dataset brings nothing time after time.
            OSError: if the disk is full.
        """
        results: dict[str, Result] = {}
        idle, before, start = 0, (-1, -1), self._journal.rows()
        for number in itertools.count():
            standing = self._journal.standing(list(urls))
            pending = [key for key in urls if not self._is_settled(key, standing, results)]
            if not pending:
                return Fetched(standing, results)
            progress = (self._journal.rows(), len(results))
            idle, before = (0 if progress != before else idle + 1), progress
            if idle >= _IDLE_ROUNDS:
                raise ProcessFailed(self._complaint(len(pending)))
            due, when = next_due(pending, standing, time.time(), self.config.patience)
            self._wait_until(when)
            folder = scratch / f"round-{number:03d}"
            keys = interleaved((key, urls[key]) for key in due)
            self._ask(keys, folder, lambda rows: watch(rows - start))
            results.update(self._results(folder))
        raise AssertionError("unreachable: the rounds do not end by themselves")

    def _is_settled(
        self, key: str, standing: Mapping[str, Attempt], results: Mapping[str, Result]
    ) -> bool:
        attempt = standing.get(key)
        if attempt is None:
            return False
        if attempt.ok:
            return key in results
        wait = (attempt.not_before or 0.0) - time.time()
        return attempt.is_final(self.config.attempts) or wait > self.config.longest_wait

    def _wait_until(self, when: float) -> None:
        while (left := when - time.time()) > 0:
            self._require_gateway()
            time.sleep(min(_POLL, left))

    def _ask(self, keys: Sequence[str], folder: Path, watch: Callable[[int], None]) -> None:
        urls = [self._gateway.url(key) for key in keys]
        log = self.log / "img2dataset.log"
        with start_img2dataset(urls, folder, self.settings, log) as process:
            self._wait_for(process, watch)

    def _wait_for(self, process: Guarded, watch: Callable[[int], None]) -> None:
        """Wait until img2dataset ends, well or not; what it did not bring is asked for again."""
        last, since = -1, time.monotonic()
        while not process.ends_within(_POLL):
            self._require_gateway()
            self._require_room()
            ended = self._journal.rows()
            if ended != last:
                last, since = ended, time.monotonic()
                watch(ended)
            if time.monotonic() - since > _STALL:
                return

    def _results(self, folder: Path) -> dict[str, Result]:
        found = ((r.url.rpartition("/")[2], r) for r in read_results(folder))
        return {key: result for key, result in found if result.is_settled}

    def _require_gateway(self) -> None:
        status = self._gateway.process.poll()
        if status is not None:
            words = tail(self._gateway.process.log)
            raise ProcessFailed(f"the gateway ended with status {status}; its last words:\n{words}")

    def _require_room(self) -> None:
        """On a full disk img2dataset neither goes on nor ends."""
        if not has_room(self.log):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.log))

    def _complaint(self, pending: int) -> str:
        return (
            f"img2dataset brought nothing in {_IDLE_ROUNDS} rounds while {pending} URLs have no"
            f" outcome; its last words:\n{tail(self.log / 'img2dataset.log')}"
            f"\nand the gateway's:\n{tail(self._gateway.process.log)}"
        )


def interleaved(urls: Iterable[tuple[str, str]]) -> list[str]:
    """Keys in an order that goes round the hosts: a slow one then holds up no other."""
    by_host: dict[str, list[str]] = defaultdict(list)
    for key, url in urls:
        by_host[url.partition("://")[2].partition("/")[0]].append(key)
    rounds = itertools.zip_longest(*by_host.values())
    return [key for keys in rounds for key in keys if key is not None]


def next_due(
    keys: Iterable[str], standing: Mapping[str, Attempt], now: float, patience: float
) -> tuple[list[str], float]:
    """The keys to ask for next, and when: as soon as one may be, with those that soon may be, too.

    Starting img2dataset twice costs more than a short pause. But images of a slow host have turns
    of their own: if all were waited for, only one of them would get through.

    Args:
        keys: at least one; those that were never asked for are due now.
        standing: the last attempts.
        now: seconds since the epoch.
        patience: seconds; the gateway's, so that turns of one host lie further apart.
    """
    times = {
        key: max(now, standing[key].not_before or 0.0) if key in standing else now for key in keys
    }
    soon = min(times.values()) + patience
    due = {key: when for key, when in times.items() if when <= soon}
    return list(due), max(due.values())
