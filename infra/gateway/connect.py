"""One request, without redirects: the session that makes it, and what its failures mean."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

from infra.gateway.config import GatewayConfig
from infra.gateway.outcomes import Attempt, Outcome, Refused
from infra.gateway.resolver import Lookup, PinnedResolver, PrivateHosts, public_tls

_KEEP_ALIVE = 15.0  # seconds; most servers drop an idle connection not much later
_NAME_LIFETIME = 300  # seconds for which the checked addresses of a name are used again
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class Connections:
    """The client session of the gateway: no cookies, no proxies, no redirects, pinned addresses."""

    def __init__(self, config: GatewayConfig, lookup: Lookup | None = None) -> None:
        private = config.private_hosts
        self.private = PrivateHosts.read(private) if private else PrivateHosts()
        self._resolver = PinnedResolver(self.private, lookup)
        self._config = config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver,
                socket_factory=self._checked_socket,
                ssl=public_tls(),
                limit=config.connections,
                ttl_dns_cache=_NAME_LIFETIME,
                keepalive_timeout=_KEEP_ALIVE,
            ),
            headers={
                "User-Agent": config.user_agent,
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=config.total_timeout,
                sock_connect=config.connect_timeout,
                sock_read=config.idle_timeout,
            ),
            trust_env=False,
            auto_decompress=False,
        )

    @contextlib.asynccontextmanager
    async def get(self, url: URL, trail: Attempt) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a URL that was checked; the answer's headers are there, its body is not yet.

        The connection is closed at the end unless the body was read to its end.

        Raises:
            Refused: for every way in which the request may fail, also while the body is read.
        """
        tls = self.private.tls if self.private.has(url) else None
        options: dict[str, Any] = {"ssl": tls} if tls is not None else {}
        with failures_named(trail):
            response = await self._session.get(url, allow_redirects=False, **options)
            try:
                trail.address = _peer(response)
                yield response
            finally:
                response.close()  # a connection whose answer was read is in the pool again already

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _checked_socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, target = address
        self._resolver.check((str(target[0]), int(target[1])))
        return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def failures_named(trail: Attempt) -> Any:
    """Turn what the client library raises into `Refused` with the outcome that it means."""
    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError) as error:
        raise _refused(Outcome.TLS_ERROR, "the certificate does not hold", error) from error
    except (aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
        raise _refused(Outcome.TLS_ERROR, "no TLS connection", error) from error
    except aiohttp.ClientConnectorDNSError as error:
        unknown = error.os_error.errno in _NO_SUCH_NAME
        detail = "the name does not exist" if unknown else "the name could not be resolved"
        raise _refused(Outcome.DNS_ERROR, detail, error, permanent=unknown) from error
    except (aiohttp.InvalidURL, ValueError) as error:  # a name that IDNA cannot write, and the like
        raise _refused(Outcome.BAD_URL, "no URL that can be requested", error) from error
    except TimeoutError as error:
        raise _refused(Outcome.TIMEOUT, "no answer in time", error) from error
    except aiohttp.ClientPayloadError as error:
        raise _refused(Outcome.TRUNCATED, "the body ends too early", error) from error
    except (aiohttp.ClientError, OSError) as error:
        if trail.status == 200:  # headers came, so the connection broke within the body
            raise _refused(Outcome.TRUNCATED, "the body ends too early", error) from error
        raise _refused(Outcome.CONNECTION_ERROR, "no HTTP answer", error) from error


def _refused(
    outcome: Outcome, detail: str, error: Exception, permanent: bool | None = None
) -> Refused:
    words = f"{type(error).__name__}: {error}"
    return Refused(outcome, detail, error=words[:500], permanent=permanent)


def _peer(response: aiohttp.ClientResponse) -> str:
    connection = response.connection
    if connection is None or connection.transport is None:
        return ""  # the whole answer came at once and its connection is in the pool again
    peer = connection.transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else ""
