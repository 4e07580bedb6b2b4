"""Source files on web servers: what they are, and their bytes.

The operator declares a URL, and that host is asked, whatever its address. Where the answer points
elsewhere is the server's word, and it is followed only to global addresses, which are checked and
then connected to (`infra.gateway`), and never from https to http. A broken transfer is taken up
where it broke.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urljoin

from yarl import URL

from infra.errors import PermanentError
from infra.gateway.addresses import check_host, parse_url, why_refused
from infra.gateway.outcomes import Refused
from infra.gateway.resolver import public_tls

_TIMEOUT = 60.0  # seconds without a byte
_TRIES = 5
_PAUSE = 1.0  # seconds before the second try, then twice as long each time
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_MISSING = (403, 404, 410)  # object stores say 403 of what is not there
_CHUNK = 1 << 20
_HEADERS = {"User-Agent": "tapir-pipelines", "Accept": "*/*", "Accept-Encoding": "identity"}


class Told(NamedTuple):
    """What a server tells of a file; `mark` differs when the file does."""

    size: int
    mark: str


def ask(url: str) -> Told | None:
    """What the file at a URL is; None if there is none.

    Raises:
        PermanentError: if the server does not say what would be needed, or points to a private
            address.
        ConnectionError: if it cannot be reached.
    """
    for attempt in _tries():
        with attempt, _get(url, {"Range": "bytes=0-0"}) as answer:
            if answer.status in _MISSING:
                return None
            _require(answer, url, (200, 206))
            return _told(answer, url)
    raise ConnectionError(f"{url}: no whole answer in {_TRIES} tries")


def fetch(url: str, expected: Told, target: Path) -> bool:
    """Write the file at a URL to `target`; whether it is still the expected one.

    No more bytes are read than expected.

    Raises:
        PermanentError, ConnectionError: as `ask`.
    """
    with target.open("wb") as file:
        for attempt in _tries():
            with attempt:
                start = file.tell()
                with _get(url, {"Range": f"bytes={start}-"} if start else {}) as answer:
                    _require(answer, url, (200, 206))
                    if _told(answer, url) != expected:
                        return False
                    if answer.status == 200:  # the server knows no ranges
                        file.seek(0)
                    _copy(answer, file, expected.size)
                    if file.tell() == expected.size:
                        file.truncate()
                        return True
                    raise ConnectionError(f"{url}: ended at byte {file.tell()}")
    raise ConnectionError(f"{url}: no whole answer in {_TRIES} tries")


def read(url: str, most: int) -> bytes:
    """The content of a URL of which no version need be told, or its first `most` + 1 bytes.

    Raises:
        PermanentError, ConnectionError: as `ask`, and if there is nothing.
    """
    for attempt in _tries():
        with attempt, _get(url, {}) as answer:
            _require(answer, url, (200,))
            content = answer.read(most + 1)
            if answer.length and len(content) <= most:
                raise ConnectionError(f"{url}: ended at byte {len(content)}")
            return content
    raise ConnectionError(f"{url}: no whole answer in {_TRIES} tries")


def _tries() -> Iterator[contextlib.AbstractContextManager[object]]:
    """Context managers that let failures pass that another try may mend, except in the last."""
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE * 2 ** (number - 1))
        if number == _TRIES - 1:
            yield contextlib.nullcontext()
        else:
            yield contextlib.suppress(OSError, http.client.HTTPException)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], size: int) -> None:
    while file.tell() < size:
        # `read1` gives what came before the connection broke, too.
        chunk = answer.read1(min(_CHUNK, size - file.tell()))
        if not chunk:
            return
        file.write(chunk)


def _told(answer: http.client.HTTPResponse, url: str) -> Told:
    size = answer.headers.get("Content-Length", "")
    if answer.status == 206:
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
    tag = answer.headers.get("ETag", "").strip().removeprefix("W/").strip('"')
    modified = answer.headers.get("Last-Modified", "").strip()
    if not size.isdecimal() or not (tag or modified):
        raise PermanentError(
            f"the source {url}: its server tells no Content-Length, or neither ETag nor"
            " Last-Modified, so that a file replaced under this name would not be noticed;"
            " copy it to a disk or an object store"
        )
    return Told(int(size), f"etag:{size}:{tag}" if tag else f"modified:{size}:{modified}")


def _require(answer: http.client.HTTPResponse, url: str, accepted: tuple[int, ...]) -> None:
    if answer.status in accepted:
        return
    if answer.status == 429 or answer.status >= 500:
        raise ConnectionError(f"{url}: status {answer.status} {answer.reason}")
    raise PermanentError(f"the source {url}: status {answer.status} {answer.reason}")


@contextlib.contextmanager
def _get(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request, redirects followed; its body is not read yet."""
    declared = _parsed(url, url)
    here = declared
    for _ in range(_MOST_REDIRECTS + 1):
        connection = _connect(here, trusted=here.origin() == declared.origin(), url=url)
        try:
            connection.request("GET", str(here.relative()), headers={**_HEADERS, **headers})
            answer = connection.getresponse()
            if answer.status not in _REDIRECTS:
                yield answer
                return
            there = _parsed(urljoin(str(here), answer.headers.get("Location", "")), url)
        finally:
            connection.close()
        if here.scheme == "https" and there.scheme != "https":
            raise PermanentError(f"the source {url}: {here} points to {there}, which is not https")
        here = there
    raise PermanentError(f"the source {url}: more than {_MOST_REDIRECTS} redirects")


def _parsed(text: str, url: str) -> URL:
    try:
        return parse_url(text)
    except Refused as error:
        raise PermanentError(f"the source {url}: {error}") from error


def _connect(place: URL, trusted: bool, url: str) -> http.client.HTTPConnection:
    host, port = place.raw_host or "", place.port or 0
    addresses = [host] if trusted else _global_addresses(place, url)
    if place.scheme == "https":
        return _Secure(host, port, addresses)
    return _Plain(host, port, addresses)


def _global_addresses(place: URL, url: str) -> list[str]:
    try:
        check_host(place)
    except Refused as error:
        raise PermanentError(f"the source {url}: it points to {place}: {error}") from error
    found = socket.getaddrinfo(place.raw_host, place.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if (reason := why_refused(address)) is not None:
            raise PermanentError(f"the source {url}: it points to {place}: {reason}")
    return addresses


class _Plain(http.client.HTTPConnection):
    """A connection to the addresses that were checked, and to no others."""

    def __init__(self, host: str, port: int, addresses: list[str]) -> None:
        super().__init__(host, port, timeout=_TIMEOUT)
        self._addresses = addresses

    def connect(self) -> None:
        self.sock = _socket(self._addresses, self.port)


class _Secure(http.client.HTTPSConnection):
    """The same with TLS; the certificate is checked against the name."""

    def __init__(self, host: str, port: int, addresses: list[str]) -> None:
        super().__init__(host, port, timeout=_TIMEOUT, context=public_tls())
        self._addresses = addresses

    def connect(self) -> None:
        plain = _socket(self._addresses, self.port)
        self.sock: ssl.SSLSocket = public_tls().wrap_socket(plain, server_hostname=self.host)


def _socket(addresses: list[str], port: int) -> socket.socket:
    failed: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=_TIMEOUT)
        except OSError as error:
            failed = error
    raise failed or OSError("the name has no address")
