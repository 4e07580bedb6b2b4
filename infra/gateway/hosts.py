"""How much is asked of one host: requests at a time, requests a second, and pauses it wants.

A host that answers 429, or 503 with Retry-After, is left alone for as long as it says, and for a
second, two, four, … when it says so again and again. After too many failures in a row it is given
up for a while: each of its URLs gets the outcome of the last failure without a request, so that a
dead host with a million images does not cost a million timeouts.

Of the hosts that were asked longest ago those are forgotten of which nothing is to be remembered:
no pause, no failure. Beyond a bound those with failures go, too, and at last any that is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

from infra.gateway.outcomes import Deferred, Outcome, Refused

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0  # seconds, of those that a host did not ask for itself
BELIEVED_PAUSES = 4  # in a row
MAX_PAUSES = 10  # in a row, some two minutes and more
GIVEN_UP_FOR = 60.0  # seconds; then one request may find out whether it is back
_KEPT_HOSTS = 10_000
_MOST_HOSTS = 50_000  # with those that have failed or want a pause; some 40 MB
_LOOKED_AT = 4  # of the oldest hosts, for each new one
# Failures that say something about the host and not about one image of it.
STRIKES = frozenset(
    {Outcome.RATE_LIMITED, Outcome.TIMEOUT, Outcome.CONNECTION_ERROR, Outcome.DNS_ERROR}
)


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    interval: float  # seconds between two requests
    next_request: float = 0.0
    promised: float = 0.0  # the last turn that a deferred request was given
    resume: float = 0.0
    pauses: int = 0  # in a row
    strikes: int = 0  # in a row
    last_failure: Refused | None = None
    given_up_until: float = 0.0
    users: int = 0

    def worth(self, now: float) -> int:
        """0 if it may be forgotten at once; the more, the less so; 3 if it is in use."""
        if self.users:
            return 3
        if max(self.next_request, self.promised, self.resume, self.given_up_until) > now:
            return 2
        return 1 if self.strikes or self.pauses else 0


class Hosts:
    """What each host can bear; times are those of `time.monotonic`."""

    def __init__(
        self, rate: float, connections: int, strikes: int, patience: float, longest_wait: float
    ) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._connections = connections
        self._strikes = strikes
        self._patience = patience
        self._longest_wait = longest_wait
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # the one asked longest ago first

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
        """Leave at least `delay` seconds between two requests, as robots.txt may ask.

        To be told again whenever the host is asked, for it may have been forgotten.
        """
        host = self._host(name)
        host.interval = max(host.interval, delay)

    async def _wait_for_turn(self, host: _Host) -> None:
        while True:
            now = time.monotonic()
            if host.last_failure is not None and now < host.given_up_until:
                raise GivenUp(host.last_failure, host.given_up_until - now)
            start = max(now, host.next_request, host.resume)
            if start - now > self._patience:
                raise Deferred(self._turn(host, start, now) - now)
            if start == now:
                host.next_request = now + host.interval
                return
            await asyncio.sleep(start - now)

    def _turn(self, host: _Host, start: float, now: float) -> float:
        """When a request that cannot be made before `start` is to come again.

        If one host's requests lie further apart than one may wait here, only one of those that come
        together is made: each gets a turn of its own, unless that is too far away to be kept.
        """
        if host.interval <= self._patience:
            return start
        turn = max(start, host.promised + host.interval)
        if turn - now <= self._longest_wait:
            host.promised = turn
        return turn

    def _failed(self, host: _Host, refused: Refused) -> None:
        if isinstance(refused, GivenUp):
            return
        if refused.outcome not in STRIKES:
            host.strikes, host.pauses = 0, 0  # it answers, only not with this image
            return
        host.strikes += 1
        host.last_failure = refused.copy()
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
            self._make_room()
            self._hosts[name] = _Host(asyncio.Semaphore(self._connections), self._interval)
        self._hosts.move_to_end(name)
        return self._hosts[name]

    def _make_room(self) -> None:
        """Look at a few of the oldest: the time for one host is the same however many there are."""
        if len(self._hosts) < _KEPT_HOSTS:
            return
        now = time.monotonic()
        oldest = itertools.islice(self._hosts.items(), _LOOKED_AT)
        worths = {name: host.worth(now) for name, host in oldest}
        least = min(worths.values())
        for name, worth in worths.items():
            full = len(self._hosts) >= _MOST_HOSTS
            if worth == 0 or (full and worth == least < 3):
                del self._hosts[name]
            else:
                self._hosts.move_to_end(name)


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
