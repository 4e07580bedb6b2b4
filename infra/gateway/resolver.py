"""Resolve and pin: the addresses that a name has are checked and then connected to, nothing else.

There is one lookup for each connection, and the connector connects to the very addresses that came
out of it, so a name that answers differently the second time gains nothing. TLS still verifies the
certificate against the name.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from infra.gateway.addresses import why_refused
from infra.gateway.outcomes import Outcome, Refused

Lookup = Callable[[str, int], Awaitable[list[str]]]
_LOOKUP_THREADS = 32  # the system's resolver blocks; a slow name server must not hold up the rest


@dataclass(frozen=True)
class PrivateHosts:
    """The hosts that the operator lets the gateway reach although they are private.

    Attributes:
        targets: "host:port" of a URL to the (address, port) to connect to instead.
        tls: trusts the certificates of those hosts, and is used for no other host.
    """

    targets: dict[str, tuple[str, int]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `{"hosts": {"name:port": "address:port"}, "ca_file": "ca.pem"}`.

        Raises:
            ValueError: naming the file and the entry that is not of this form.
        """
        entry = json.loads(path.read_text())
        targets = {}
        for name, target in entry.get("hosts", {}).items():
            address, _, port = str(target).rpartition(":")
            if ":" not in name or not address or not port.isdecimal():
                raise ValueError(
                    f"{path}: {name!r}: {target!r} must be 'host:port': 'address:port'"
                )
            targets[name.lower()] = (address.strip("[]"), int(port))
        ca_file = entry.get("ca_file")
        tls = ssl.create_default_context(cafile=path.parent / ca_file) if ca_file else None
        return cls(targets, tls)

    def target(self, host: str, port: int) -> tuple[str, int] | None:
        """Where to connect for this very host and port, or None if it is not private."""
        return self.targets.get(f"{host}:{port}")

    def has(self, url: URL) -> bool:
        """Whether the URL's host and port are in the list."""
        return self.target((url.raw_host or "").lower(), url.port or 0) is not None


class PinnedResolver(AbstractResolver):
    """Gives the connector addresses that may be reached, and refuses names that have others."""

    def __init__(self, private: PrivateHosts, lookup: Lookup | None = None) -> None:
        self._private = private
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, "lookup")
        self._lookup = lookup or self._system_lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses to connect to.

        Raises:
            Refused: REFUSED_ADDRESS if any of the name's addresses is not global: a name that has
                both kinds is trying something.
            OSError: if the name has no address.
        """
        if (target := self._private.target(host.lower(), port)) is not None:
            return [_result(host, *target)]
        addresses = await self._lookup(host, port)
        for address in addresses:
            if (reason := why_refused(address)) is not None:
                # Which of several addresses a name server gives first varies; the name does not.
                detail = f"{host} has an address that is not global"
                raise Refused(Outcome.REFUSED_ADDRESS, detail, error=reason)
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _system_lookup(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def check(self, address: tuple[str, int]) -> None:
        """Refuse an address that `resolve` would not have given: the last check, at the socket."""
        if address in self._private.targets.values():
            return
        if (reason := why_refused(address[0])) is not None:
            raise Refused(Outcome.REFUSED_ADDRESS, "the address is not global", error=reason)


@lru_cache(maxsize=1)  # reading 150 certificates takes 40 ms
def public_tls() -> ssl.SSLContext:
    """Trusts what the system trusts and certifi's list: slim images come without the former."""
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=certifi.where())
    return context


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
