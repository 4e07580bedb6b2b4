"""The gateway itself: a key in, bytes or a reason out, and each URL asked for as often as allowed.

Whatever kills it, the journal knows what was asked for: an attempt is on disk before its answer is
given, and a body is in the spool before its attempt is in the journal.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

from infra.gateway.config import GatewayConfig
from infra.gateway.fetch import Fetcher
from infra.gateway.journal import Journal
from infra.gateway.outcomes import Attempt
from infra.gateway.resolver import Lookup
from infra.gateway.spool import Spool
from infra.gateway.table import UrlTable

_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Answer:
    """What the gateway says to a key: an attempt, new or old, and the body if it was ok."""

    attempt: Attempt
    body: bytes | None
    from_journal: bool = False


class Gateway:
    """Answers keys; use it in an `async with` statement, within the loop that it runs in."""

    def __init__(self, config: GatewayConfig, lookup: Lookup | None = None) -> None:
        self.counts: Counter[str] = Counter()  # answers by outcome, since the start
        self._config = config
        self._table = UrlTable(config.table)
        self._journal = Journal(config.journal)
        self._spool = Spool(config.spool)
        self._fetcher = Fetcher(config, lookup)
        self._running: dict[str, asyncio.Task[Answer]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._fetcher.close()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._journal.close()
        self._table.close()

    async def answer(self, key: str) -> Answer | None:
        """The answer to a key, or None if the table does not have it.

        Two who ask for the same key at the same time get the same answer. One who leaves does not
        end the request: what it gives is kept for the next.
        """
        task = self._running.get(key)
        if task is None:
            url = self._table.url(key) if _KEY.fullmatch(key) else None
            if url is None:
                return None
            task = self._running[key] = asyncio.create_task(self._answer(key, url))
            task.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(task)

    async def _answer(self, key: str, url: str) -> Answer:
        last = self._journal.last(key)
        if last is not None and (known := self._known(last)) is not None:
            self.counts["from_journal"] += 1
            return known
        answer = await self._attempt(key, url, last)
        self.counts[answer.attempt.outcome] += 1
        return answer

    def _known(self, last: Attempt) -> Answer | None:
        """The answer that the journal has already, or None if the URL is to be asked for."""
        if last.ok:
            body = self._spool.get(last)
            return None if body is None else Answer(last, body, from_journal=True)
        too_early = last.not_before is not None and time.time() < last.not_before
        if too_early or last.is_final(self._config.attempts):
            return Answer(last, None, from_journal=True)
        return None

    async def _attempt(self, key: str, url: str, last: Attempt | None) -> Answer:
        attempt = Attempt(key, url, attempt=1 if last is None else last.attempt + 1)
        body = await self._fetcher.fetch(attempt)
        if last is not None and last.ok and attempt.sha256 != last.sha256:
            # The body was released or lost and had to be fetched again: say that it is another.
            attempt.error = f"it was {last.sha256} before; {attempt.error}".rstrip("; ")
        if attempt.deferred:
            self._bound_wait(attempt)
        if body is not None:
            self._spool.put(key, body)
        await self._journal.append(attempt)
        return Answer(attempt, body)

    def _bound_wait(self, attempt: Attempt) -> None:
        """Give a URL up whose host's pauses add up to more than is worth waiting.

        One by one they may all be short: of many images of a slow host each would wait for all.
        """
        wait = (attempt.not_before or 0.0) - attempt.started + self._journal.waited(attempt.key)
        if wait > self._config.longest_wait and not attempt.is_final(self._config.attempts):
            attempt.attempt = self._config.attempts
            attempt.detail = "the host wants to be left alone for too long"
