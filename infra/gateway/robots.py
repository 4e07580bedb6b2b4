"""robots.txt (RFC 9309), read once for each origin and kept.

A file that is not there (4xx) allows everything. One that cannot be read (5xx, no answer, an
address that is refused) forbids everything until it can: the answer is transient, so that a later
pass asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protego import Protego
from yarl import URL

from infra.gateway.hosts import GivenUp
from infra.gateway.outcomes import Deferred, Outcome, Refused

_LIFETIME = 86_400.0  # seconds; RFC 9309: not to be used for more than 24 hours
_UNREADABLE_LIFETIME = 5.0  # seconds, so that not every image of a broken site asks again
_KEPT_ORIGINS = 20_000

Read = Callable[[URL], Awaitable[str | None]]


@dataclass
class _Rules:
    expires: float
    rules: Protego | None = None  # None allows everything
    unreadable: Refused | None = None
    delay: float = 0.0  # seconds between two requests to the host


class Robots:
    """The rules of each origin, fetched when they are first needed."""

    def __init__(self, agent: str, read: Read, slow_down: Callable[[str, float], None]) -> None:
        """Keep rules for `agent`.

        Args:
            agent: product token of our user agent.
            read: gives the text of a robots.txt, None if there is none; raises Refused if it
                cannot be known whether there is one.
            slow_down: told of a host's Crawl-delay in seconds, before each request to it.
        """
        self._agent = agent
        self._read = read
        self._slow_down = slow_down
        self._origins: dict[URL, asyncio.Task[_Rules]] = {}

    async def check(self, url: URL) -> None:
        """Do nothing if the URL may be requested.

        Raises:
            Refused: ROBOTS_DISALLOWED; if the rules cannot be read ROBOTS_UNAVAILABLE, or why
                the host cannot be asked at all.
            Deferred: if the host wants to be left alone before it shows its rules.
        """
        rules = await self._rules(url.origin())
        if (cause := rules.unreadable) is not None:
            if cause.outcome is Outcome.RATE_LIMITED and not isinstance(cause, GivenUp):
                raise Deferred(cause.wait or 0.0)
            raise cause.copy()  # the one that is kept would gather the traceback of every image
        if rules.rules is not None and not rules.rules.can_fetch(str(url), self._agent):
            raise Refused(Outcome.ROBOTS_DISALLOWED, f"robots.txt of {url.origin()} forbids it")
        if rules.delay:
            self._slow_down(url.raw_host or "", rules.delay)

    async def _rules(self, origin: URL) -> _Rules:
        task = self._origins.get(origin)
        if task is None or (task.done() and task.result().expires < time.monotonic()):
            self._make_room()
            task = self._origins[origin] = asyncio.create_task(self._load(origin))
        # Many images wait for one file; none of them may cancel it for the others.
        return await asyncio.shield(task)

    async def _load(self, origin: URL) -> _Rules:
        try:
            text = await self._read(origin / "robots.txt")
            rules = None if text is None else Protego.parse(text)
        except Refused as refused:
            return _Rules(time.monotonic() + _UNREADABLE_LIFETIME, unreadable=refused)
        except BaseException:  # Deferred, above all: the next image asks again
            del self._origins[origin]
            raise
        delay = 0.0 if rules is None else float(rules.crawl_delay(self._agent) or 0.0)
        return _Rules(time.monotonic() + _LIFETIME, rules, delay=min(delay, _LIFETIME))

    def _make_room(self) -> None:
        if len(self._origins) >= _KEPT_ORIGINS:
            # The half that expires first, so that this is seldom: what is needed is read again.
            done = {o: t.result().expires for o, t in self._origins.items() if t.done()}
            for origin in sorted(done, key=done.__getitem__)[: _KEPT_ORIGINS // 2]:
                del self._origins[origin]
