"""Serves a demo site on loopback over http and https, with the manners and ills of real servers.

HTTP/1.1 by hand on asyncio streams: the point is to know what was sent and when the other side went
away, which a framework hides. All hosts share two ports; `hosts.json` beside the site says which. A
third port, the trap, serves nothing and logs every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

from infra.demo_web.access_log import LOG_FILE, LOGGED, AccessLog, LogEntry, read_log
from infra.demo_web.certificates import server_context
from infra.demo_web.site import TRAP_PORT, Behaviour, Route, read_site

HOSTS_FILE, CA_FILE = "hosts.json", "ca.pem"
_HEAD_LIMIT = 32_768  # bytes of a request's head
_STALL_SECONDS = 120.0
# Even a client without a bound gets no more of an endless body than this.
_ENDLESS_BYTES = 64_000_000
_CHUNK = bytes(65_536)


class Ports(NamedTuple):
    """Where the server listens on 127.0.0.1."""

    http: int
    https: int
    trap: int


class _Request(NamedTuple):
    method: str
    host: str
    path: str
    headers: dict[str, str]
    keep_alive: bool
    time: float


class DemoServer:
    """One site, from `start` to `close`."""

    def __init__(self, folder: Path, log: Path | None = None) -> None:
        """Read the site in `folder`; log to `log`, by default beside it.

        Raises:
            FileNotFoundError: if there is no site.
        """
        self.folder = folder
        self._site = read_site(folder)
        log = log or folder / LOG_FILE
        # A visitor that was told to come later may come after this server has been started anew.
        self._throttled = _told_to_wait(log)
        self._log = AccessLog(log)
        self._servers: list[asyncio.Server] = []
        self._ports = Ports(0, 0, 0)
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> Ports:
        """Listen, and write `hosts.json` and `ca.pem`."""
        names = self._site.about["hosts"]
        context = server_context(names, self.folder / CA_FILE)
        http = await self._listen("http")
        https = await self._listen("https", context=context)
        trap = await self._listen("trap")
        with contextlib.suppress(OSError):  # a machine without IPv6 has no such address to reach
            await self._listen("trap", host="::1", port=trap)
        self._ports = Ports(http, https, trap)
        self._write_hosts(names)
        return self._ports

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._log.close()

    async def _listen(
        self,
        scheme: str,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(scheme, reader, writer)

        server = await asyncio.start_server(
            connected, host, port, limit=_HEAD_LIMIT, backlog=512, ssl=context
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def _write_hosts(self, names: list[str]) -> None:
        places = (("80", self._ports.http), ("443", self._ports.https))
        hosts = {f"{name}:{port}": f"127.0.0.1:{real}" for name in names for port, real in places}
        unfinished = self.folder / f".{HOSTS_FILE}.{os.getpid()}"
        unfinished.write_text(json.dumps({"hosts": hosts, "ca_file": CA_FILE}, indent=1) + "\n")
        unfinished.replace(self.folder / HOSTS_FILE)

    async def _connected(
        self, scheme: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if scheme == "trap":
                self._log.write(LogEntry(time.time(), scheme))
                return
            # Small answers must not wait for one another's acknowledgements.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # drain() then waits until everything has left, so that what was sent is known. With a
            # bound of 0 the TLS transport would wait for ever.
            writer.transport.set_write_buffer_limits(high=1, low=0)
            while (request := await _read_request(reader)) is not None:
                answer = _Answer(self._route(request), request, scheme, reader, writer)
                if not await self._answer(answer):
                    return
        except (ConnectionError, ssl.SSLError):
            return  # the other side went away, which the log has
        finally:
            self._connections.discard(task)
            writer.close()

    def _route(self, request: _Request) -> Route:
        found = self._site.routes.get((request.host, request.path))
        if found is None:
            return Route(request.host, request.path, 404, (("Content-Type", "text/plain"),))
        if request.method not in ("GET", "HEAD"):
            return Route(request.host, request.path, 405, (("Allow", "GET, HEAD"),))
        if found.behaviour in (Behaviour.THROTTLE, Behaviour.THROTTLE_DATE):
            self._throttled[found.host, found.path] += 1
            if self._throttled[found.host, found.path] <= found.amount:
                return _too_many(found)
        return found

    async def _answer(self, answer: _Answer) -> bool:
        """Answer one request and log it; whether the connection goes on."""
        route, request = answer.route, answer.request
        body = b"" if request.method == "HEAD" else self._site.body(route)
        try:
            return await answer.give(body, self._ports)
        finally:
            logged = {name: request.headers[name] for name in LOGGED if name in request.headers}
            self._log.write(
                LogEntry(
                    time=round(request.time, 3),
                    scheme=answer.scheme,
                    method=request.method,
                    host=request.host,
                    path=request.path,
                    status=route.status,
                    policy=route.policy,
                    sent=answer.sent,
                    size=route.size,
                    headers=logged,
                )
            )


class _Answer:
    """The answer to one request, as it is being given; `sent` counts bytes of the body."""

    def __init__(
        self,
        route: Route,
        request: _Request,
        scheme: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.route, self.request, self.scheme = route, request, scheme
        self.sent = 0
        self._reader, self._writer = reader, writer

    async def give(self, body: bytes, ports: Ports) -> bool:
        """Send head and body as the route behaves; whether the connection goes on."""
        behaviour, amount = self.route.behaviour, self.route.amount
        if behaviour is Behaviour.SLOW:
            await asyncio.sleep(amount)
        endless = behaviour is Behaviour.ENDLESS
        head = self._head(ports, endless)
        if behaviour is Behaviour.HOLD:
            await self._send(head, b"")
            if not await self._gone(amount):
                await self._send(b"", body)
            return self.request.keep_alive
        if behaviour is Behaviour.STALL:
            await self._send(head, body[:20])
            await self._gone(_STALL_SECONDS)
            return False
        if behaviour is Behaviour.CUT:
            await self._send(head, body[: len(body) * 3 // 5])
            return False
        await self._send(head, body)
        while endless and self.sent < _ENDLESS_BYTES:
            await self._send(b"", _CHUNK)
        return self.request.keep_alive and not endless

    def _head(self, ports: Ports, endless: bool) -> bytes:
        lines = [f"HTTP/1.1 {self.route.status} {_REASONS.get(self.route.status, 'Answer')}"]
        for name, value in self.route.headers:
            lines.append(f"{name}: {value.replace(TRAP_PORT, str(ports.trap))}")
        if not endless:
            lines.append(f"Content-Length: {self.route.size}")
        if endless or not self.request.keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _send(self, head: bytes, body: bytes) -> None:
        """Write, and count what of the body the kernel took, also when the other side goes."""
        # Over TLS neither write() nor drain() gives way to the loop, which then never hears that
        # the other side has gone: what is thrown away would count as sent.
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
        await self._writer.drain()
        self._writer.write(head + body)
        try:
            await self._writer.drain()
        finally:
            left = self._writer.transport.get_write_buffer_size()
            self.sent += max(0, len(body) - left)

    async def _gone(self, seconds: float) -> bool:
        """Whether the other side closes within so many seconds."""
        try:
            data = await asyncio.wait_for(self._reader.read(1), seconds)
        except TimeoutError:
            return False
        if data:
            raise ConnectionAbortedError("a second request before the first was answered")
        return True


_LOOP_TURNS = 3  # a loss passes from the socket to TLS, and from there to the stream
_REASONS = {200: "OK", 302: "Found", 404: "Not Found", 410: "Gone", 429: "Too Many Requests"}


def _told_to_wait(log: Path) -> Counter[tuple[str, str]]:
    """How often each address was answered with 429, as far as a log knows."""
    entries = read_log(log) if log.exists() else []
    return Counter((entry.host, entry.path) for entry in entries if entry.status == 429)


def _too_many(route: Route) -> Route:
    seconds = 1
    after = str(seconds)
    if route.behaviour is Behaviour.THROTTLE_DATE:
        # Dates have whole seconds only: the next but one is at least one second away.
        after = formatdate(time.time() + seconds + 1, usegmt=True)
    headers = (("Retry-After", after), ("Content-Type", "text/plain"))
    return Route(route.host, route.path, 429, headers)


async def _read_request(reader: asyncio.StreamReader) -> _Request | None:
    """The next request, or None when the other side has closed or speaks no HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path, _, version = rest.rpartition(" ")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    if not version.startswith("HTTP/1.") or not path.startswith("/"):
        return None
    host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
    closes = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
    return _Request(method, host.lower(), path, headers, not closes, time.time())
