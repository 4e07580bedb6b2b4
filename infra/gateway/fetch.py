"""One URL, from request to bytes or a reason: every hop is checked as if it were the first."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import UTC

import aiohttp
from yarl import URL

from infra.gateway.addresses import check_host, parse_url
from infra.gateway.body import check_headers, read_body, read_start, require_image
from infra.gateway.config import GatewayConfig
from infra.gateway.connect import Connections
from infra.gateway.hosts import Hosts
from infra.gateway.optout import opt_out, signals
from infra.gateway.outcomes import Attempt, Deferred, Outcome, Refused
from infra.gateway.resolver import Lookup
from infra.gateway.robots import Robots

_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_TRY_AGAIN = (408, 425)  # the client errors that say so themselves
_ROBOTS_BYTES = 512_000  # RFC 9309: at least 500 KiB are to be read; what is beyond is ignored


class Fetcher:
    """Fetches URLs by the rules of `infra.gateway`."""

    def __init__(self, config: GatewayConfig, lookup: Lookup | None = None) -> None:
        self._config = config
        self._connections = Connections(config, lookup)
        self._hosts = Hosts(
            config.host_rate,
            config.host_connections,
            config.host_strikes,
            config.patience,
            config.longest_wait,
        )
        self._robots = Robots(config.agent, self._read_robots, self._hosts.slow_down)

    async def fetch(self, attempt: Attempt) -> bytes | None:
        """Ask for the attempt's URL and write down what came of it; its bytes if that is an image.

        A deferred attempt (nothing was asked, its host wants a pause) does not count as one.
        """
        attempt.started, begin = time.time(), time.monotonic()
        try:
            return await self._image(attempt)
        except Refused as refused:
            attempt.outcome, attempt.permanent = refused.outcome, refused.permanent
            attempt.detail, attempt.error = refused.detail, refused.error
            if refused.wait is not None:
                attempt.not_before = time.time() + refused.wait
        except Deferred as deferred:
            attempt.outcome, attempt.attempt = Outcome.RATE_LIMITED, attempt.attempt - 1
            attempt.detail = "the host wants to be left alone"
            attempt.not_before = time.time() + deferred.wait
        finally:
            attempt.elapsed = time.monotonic() - begin
            attempt.make_storable()
        return None

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    async def _image(self, attempt: Attempt) -> bytes:
        async with self._answer(attempt, image=True) as response:
            _check_status(response)
            attempt.content_type = response.headers.get("Content-Type", "")
            check_headers(response, self._config.max_bytes)
            body = await read_body(response, self._config.max_bytes)
        require_image(body)
        attempt.size, attempt.sha256 = len(body), hashlib.sha256(body).hexdigest()
        attempt.outcome, attempt.permanent = Outcome.OK, True
        return body

    async def _read_robots(self, url: URL) -> str | None:
        trail = Attempt("", str(url), 1)
        try:
            async with self._answer(trail, image=False) as response:
                if 400 <= response.status < 500 and response.status != 429:
                    return None
                _check_status(response)
                return (await read_start(response, _ROBOTS_BYTES)).decode("utf-8-sig", "replace")
        except Refused as refused:
            if trail.status is None or refused.outcome is Outcome.RATE_LIMITED:
                raise  # it is the host that cannot be asked, for this or for anything else
            raise Refused(
                Outcome.ROBOTS_UNAVAILABLE,
                f"robots.txt could not be read ({refused.outcome}: {refused.detail})",
                error=refused.error,
            ) from refused

    @contextlib.asynccontextmanager
    async def _answer(
        self, trail: Attempt, *, image: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of the redirects, its body not read yet.

        Only an image is subject to robots.txt and to opt-out headers; robots.txt itself is not.
        """
        url, seen = parse_url(trail.url), set[URL]()
        for _ in range(self._config.max_redirects + 1):
            seen.add(url)
            self._check_address(url)
            if image:
                await self._robots.check(url)
            trail.final_url = str(url)
            async with self._hosts.slot((url.raw_host or "").lower()):
                trail.requested = True
                async with self._connections.get(url, trail) as response:
                    trail.status = response.status
                    if image:
                        self._check_opt_out(response, trail)
                    if response.status not in _REDIRECTS:
                        yield response
                        return
                    url = self._next(url, response, seen)
        raise Refused(
            Outcome.REDIRECT_LOOP, f"more than {self._config.max_redirects} redirects in a row"
        )

    def _check_address(self, url: URL) -> None:
        if not self._connections.private.has(url):
            check_host(url)

    def _check_opt_out(self, response: aiohttp.ClientResponse, trail: Attempt) -> None:
        trail.signals = signals(response.headers)
        if response.status >= 400:
            return  # what is not there cannot be used
        config = self._config
        found = opt_out(response.headers, config.agent, config.opt_out_directives)
        if found is not None:
            raise Refused(Outcome.OPTED_OUT, found[:200])

    def _next(self, url: URL, response: aiohttp.ClientResponse, seen: set[URL]) -> URL:
        location = response.headers.get("Location")
        if not location:
            raise Refused(Outcome.NOT_AN_IMAGE, f"HTTP {response.status} without a Location")
        try:
            target = parse_url(str(url.join(URL(location, encoded=True))))
        except ValueError as error:
            raise Refused(Outcome.BAD_URL, "redirect to no URL", error=str(error)) from error
        if target in seen:
            raise Refused(Outcome.REDIRECT_LOOP, f"redirected in a circle to {target}")
        if url.scheme == "https" and target.scheme == "http" and not self._config.allow_downgrade:
            raise Refused(Outcome.REFUSED_SCHEME, f"redirected from https to {target}")
        return target


def _check_status(response: aiohttp.ClientResponse) -> None:
    """Refuse every status but 200."""
    status, detail = response.status, f"HTTP {response.status}"
    if status == 200:
        return
    wait = retry_after(response.headers.get("Retry-After"))
    if status == 429 or (status == 503 and wait is not None):
        raise Refused(Outcome.RATE_LIMITED, detail, wait=wait)
    if status in _GONE:
        raise Refused(Outcome.NOT_FOUND, detail)
    if 400 <= status < 500:
        raise Refused(Outcome.HTTP_4XX, detail, permanent=status not in _TRY_AGAIN, wait=wait)
    if status >= 500:
        raise Refused(Outcome.HTTP_5XX, detail, wait=wait)
    raise Refused(Outcome.NOT_AN_IMAGE, detail)


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date; None if it says neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        date = email.utils.parsedate_to_datetime(value.strip())
    except ValueError:
        return None
    if date.tzinfo is None:  # "-0000": a time in UTC of which nothing more is said
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - time.time())
