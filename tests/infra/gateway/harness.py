"""A web on loopback for the gateway's tests: named hosts, scripted answers, and a log of requests.

Everything runs in the test's own loop: `run(coroutine)`, with the `Web` inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image

from infra.gateway.config import GatewayConfig
from infra.gateway.gateway import Answer, Gateway
from infra.gateway.journal import JournalReader
from infra.gateway.outcomes import Attempt, url_key
from infra.gateway.resolver import Lookup
from infra.gateway.table import UrlTable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def picture(colour: str = "red", size: int = 16) -> bytes:
    """A PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def image(body: bytes | None = None, **headers: str) -> Handler:
    """Answers with a picture."""

    async def handler(request: web.Request) -> web.Response:
        content = picture() if body is None else body
        return web.Response(body=content, headers={"Content-Type": "image/png", **headers})

    return handler


def answer(status: int = 200, text: str = "", **headers: str) -> Handler:
    """Answers with a status, a text and headers (underscores stand for hyphens)."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(
            status=status,
            text=text,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    return handler


def raw(content: bytes, pause: float = 0.0, rest: bytes = b"") -> Handler:
    """Answers with these very bytes, headers and all, and closes the connection."""

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(content)
        if pause:
            await asyncio.sleep(pause)
        if rest:
            request.transport.write(rest)
        request.transport.close()
        await asyncio.sleep(0.05)
        raise asyncio.CancelledError

    return handler


@dataclass
class Web:
    """A server that plays all hosts; `log` holds (time, scheme, host, path) of each request."""

    folder: Path
    port: int = 0
    tls_port: int = 0
    routes: dict[str, Handler] = field(default_factory=dict)
    log: list[tuple[float, str, str, str]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        host, path = request.host.partition(":")[0], request.path_qs
        self.log.append((time.monotonic(), request.scheme, host, path))
        self.agents.add(request.headers.get("User-Agent", ""))
        handler = self.routes.get(host + path) or self.routes.get(path)
        if handler is None:
            return web.Response(status=404)
        return await handler(request)  # type: ignore[arg-type]

    def asked(self, path: str) -> int:
        """How often a path was requested."""
        return sum(entry[3] == path for entry in self.log)

    def write_hosts(self, *names: str, ca_file: str | None = None) -> Path:
        """A private_hosts file for these names, on ports 80 and 443."""
        hosts = {f"{name}:80": f"127.0.0.1:{self.port}" for name in names}
        hosts |= {f"{name}:443": f"127.0.0.1:{self.tls_port}" for name in names}
        path = self.folder / "hosts.json"
        path.write_text(json.dumps({"hosts": hosts, "ca_file": ca_file}))
        return path


@contextlib.asynccontextmanager
async def serving(folder: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    """A `Web` on free ports of loopback."""
    site = Web(folder)
    runner = web.ServerRunner(web.Server(site.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1).start()
    site.port = runner.addresses[0][1]
    if tls is not None:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, shutdown_timeout=0.1).start()
        site.tls_port = runner.addresses[1][1]
    try:
        yield site
    finally:
        await runner.cleanup()


@dataclass
class Bench:
    """A gateway in this process beside the web that it asks."""

    web: Web
    config: GatewayConfig
    gateway: Gateway

    async def get(self, url: str) -> Answer:
        """What the gateway answers for a URL."""
        with UrlTable(self.config.table, write=True) as table:
            table.want("chunk", [(url_key(url), url)])
        answer = await self.gateway.answer(url_key(url))
        assert answer is not None
        return answer

    def attempts(self, *urls: str) -> list[Attempt]:
        """What the journal holds on these URLs."""
        with JournalReader(self.config.journal) as journal:
            return list(journal.attempts([url_key(url) for url in urls]))


def configure(folder: Path, **settings: Any) -> GatewayConfig:
    """A configuration with files in `folder`, quick for tests."""
    UrlTable(folder / "urls.sqlite", write=True).close()
    defaults = {
        "user_agent": "TapirTest/1.0 (+https://example.org/bot)",
        "host_rate": 0.0,
        "total_timeout": 5.0,
        "idle_timeout": 3.0,
        "connect_timeout": 2.0,
    }
    return GatewayConfig(
        table=folder / "urls.sqlite",
        journal=folder / "journal.sqlite",
        spool=folder / "spool",
        ready=folder / "ready.json",
        **{**defaults, **settings},
    )


@contextlib.asynccontextmanager
async def bench(
    folder: Path,
    *,
    hosts: tuple[str, ...] = ("shapes.test", "other.test"),
    tls: ssl.SSLContext | None = None,
    ca_file: str | None = None,
    lookup: Lookup | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """A gateway that reaches `hosts`, all of them played by one `Web`."""
    async with serving(folder, tls) as site:
        if "private_hosts" not in settings:
            settings["private_hosts"] = site.write_hosts(*hosts, ca_file=ca_file)
        config = configure(folder, **settings)
        async with Gateway(config, lookup or no_names) as gateway:
            yield Bench(site, config, gateway)


async def no_names(host: str, port: int) -> list[str]:
    """A name server that knows nothing; no test asks a real one."""
    raise OSError(-2, "Name or service not known")


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; a minute is far more than any of them needs."""
    asyncio.run(asyncio.wait_for(test, 60))
