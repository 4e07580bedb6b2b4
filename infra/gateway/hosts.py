"""How much is asked of one host: requests at a time, requests a second, and pauses it wants.

A host that answers 429, or 503 with Retry-After, is left alone for as long as it says, and for a
second, two, four, … when it says so again and again. After too many failures in a row it is given
up for a while: each of its URLs gets the outcome of the last failure without a request, so that a
dead host with a million images does not cost a million timeouts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from infra.gateway.outcomes import Deferred, Outcome, Refused

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0  # seconds, of those that a host did not ask for itself
BELIEVED_PAUSES = 4  # in a row
MAX_PAUSES = 10  # in a row, some two minutes and more
GIVEN_UP_FOR = 60.0  # seconds; then one request may find out whether it is back
_KEPT_HOSTS = 10_000
# Failures that say something about the host and not about one image of it.
STRIKES = frozenset(
    {Outcome.RATE_LIMITED, Outcome.TIMEOUT, Outcome.CONNECTION_ERROR, Outcome.DNS_ERROR}
)


@dataclass
class _Host:
    slots: asyncio.Semaphore
    interval: float  # seconds between two requests
    next_request: float = 0.0
    resume: float = 0.0
    pauses: int = 0  # in a row
    strikes: int = 0  # in a row
    last_failure: Refused | None = None
    given_up_until: float = 0.0
    users: int = 0


class Hosts:
    """What each host can bear; times are those of `time.monotonic`."""

    def __init__(self, rate: float, connections: int, strikes: int, patience: float) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._connections = connections
        self._strikes = strikes
        self._patience = patience
        self._hosts: dict[str, _Host] = {}

    @contextlib.asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Wait until a request to the host may be made, and hold its place until it is over.

        Raises:
            Deferred: if the host wants to be left alone for longer than is worth waiting.
            Refused: with the last failure's outcome, if the host was given up.
        """
        host = self._host(name)
        host.users += 1
        try:
            async with host.slots:
                await self._wait_for_turn(host)
                yield
        except Refused as refused:
            self._failed(host, refused)
            raise
        else:
            host.strikes, host.pauses, host.given_up_until = 0, 0, 0.0
        finally:
            host.users -= 1

    def slow_down(self, name: str, delay: float) -> None:
        """Leave at least `delay` seconds between two requests, as robots.txt may ask."""
        host = self._host(name)
        host.interval = max(host.interval, delay)

    async def _wait_for_turn(self, host: _Host) -> None:
        while True:
            now = time.monotonic()
            if host.last_failure is not None and now < host.given_up_until:
                raise GivenUp(host.last_failure, host.given_up_until - now)
            start = max(now, host.next_request, host.resume)
            if start - now > self._patience:
                raise Deferred(start - now)
            if start == now:
                host.next_request = now + host.interval
                return
            await asyncio.sleep(start - now)

    def _failed(self, host: _Host, refused: Refused) -> None:
        if isinstance(refused, GivenUp):
            return
        if refused.outcome not in STRIKES:
            host.strikes, host.pauses = 0, 0  # it answers, only not with this image
            return
        host.strikes += 1
        host.last_failure = refused
        if refused.outcome is Outcome.RATE_LIMITED:
            self._pause(host, refused)
        if host.strikes >= self._strikes or host.pauses > MAX_PAUSES:
            host.given_up_until = time.monotonic() + GIVEN_UP_FOR

    def _pause(self, host: _Host, refused: Refused) -> None:
        now = time.monotonic()
        if host.resume <= now:  # answers to requests that were under way belong to one pause
            host.pauses += 1
        # A host that says how long is believed for a while; one that does not is given ever more.
        doublings = host.pauses - (1 if refused.wait is None else BELIEVED_PAUSES)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**doublings)
        refused.wait = max(pause, refused.wait or 0.0)
        host.resume = max(host.resume, now + refused.wait)

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            if len(self._hosts) >= _KEPT_HOSTS:
                self._forget_idle()
            self._hosts[name] = _Host(asyncio.Semaphore(self._connections), self._interval)
        return self._hosts[name]

    def _forget_idle(self) -> None:
        now = time.monotonic()
        kept = {n: h for n, h in self._hosts.items() if h.users or h.resume > now or h.strikes}
        self._hosts = kept


class GivenUp(Refused):
    """The host failed too often in a row; nothing was asked."""

    def __init__(self, last: Refused, wait: float) -> None:
        super().__init__(
            last.outcome,
            last.detail,
            error=f"the host was given up after failures in a row; the last: {last.error}",
            permanent=last.permanent,
            wait=wait,
        )
