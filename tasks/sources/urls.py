"""Addresses as pages write them, made absolute and sendable, the way a browser would.

One spelling for one address keeps keys stable: scheme and host in lower case, no default port, no
fragment, everything outside the characters of RFC 3986 percent-encoded, escapes left as they were.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna

from schemas.records import DropReason

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_IGNORED = re.compile(r"[\t\n\r]")
_ENDS = "".join(map(chr, range(0x21)))  # control characters and space, as WHATWG strips them
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_PORTS = {"http": 80, "https": 443}
_PATH = "/%:@!$&'()*+,;=~"

# What is in its one spelling as it stands, which most addresses are, needs no parsing. Left to the
# parser: dots after a slash, semicolons, ports, and whatever must be encoded.
_TAIL = r"[\w\-.~/%:@!$&'()*+,=]*(?:\?[\w\-.~/%:@!$&'()*+,;=?]+)?"
_PLAIN = re.compile(rf"https?://[a-z0-9._-]+/{_TAIL}", re.ASCII)
_PLAIN_PATH = re.compile(_TAIL, re.ASCII)


class UnusableAddress(ValueError):
    """An address that names nothing that can be asked for over http."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def absolute_url(address: str, base: str = "") -> str:
    """The absolute http(s) URL of an address on a page.

    Raises:
        UnusableAddress: REFUSED_SCHEME for `data:`, `javascript:`, `file:` and the like, BAD_URL
            for what is no address, has no host, or carries a user name.
    """
    if address.startswith("data:"):  # many, and some are of megabytes
        raise UnusableAddress(DropReason.REFUSED_SCHEME, "scheme data")
    plain = _plain_url(address, base)
    if plain is not None:
        return plain
    text = _IGNORED.sub("", address.strip(_ENDS))
    if not text:
        raise UnusableAddress(DropReason.BAD_URL, "no address")
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() not in _PORTS:
        raise UnusableAddress(DropReason.REFUSED_SCHEME, f"scheme {scheme[1].lower()[:32]}")
    place, mark, query = text.partition("?")
    try:
        if scheme and not urlsplit(place).hostname:
            raise UnusableAddress(DropReason.BAD_URL, "no host")
        return _normal(urljoin(base, place.replace("\\", "/") + mark + query))
    except (ValueError, idna.IDNAError) as error:
        if isinstance(error, UnusableAddress):
            raise
        raise UnusableAddress(DropReason.BAD_URL, f"no address: {error}") from error


def _plain_url(address: str, base: str) -> str | None:
    """The absolute URL of an address that is written as it is sent, or None."""
    if _PLAIN.fullmatch(address):
        return address
    if address.startswith("//"):
        start = _start(base)
        whole = f"{start[0].partition(':')[0]}:{address}" if start else ""
        return whole if _PLAIN.fullmatch(whole) else None
    above = 0
    while address.startswith("../", 3 * above):
        above += 1
    address = address[3 * above :]
    path, start = address.partition("?")[0], _start(base)
    if start is None or not path or "//" in path or "/." in path or path[0] == "." or ":" in path:
        return None
    if not _PLAIN_PATH.fullmatch(address) or (above and path[0] == "/"):
        return None
    if path[0] == "/":
        return start[0] + address
    return f"{_above(*start, above) if above else start[1]}{address}"


def _above(origin: str, folder: str, steps: int) -> str:
    """The folder so many steps above another one; nothing is above the first."""
    for _ in range(steps):
        if folder == f"{origin}/":
            break
        folder = folder[: folder.rindex("/", 0, -1) + 1]
    return folder


@lru_cache(maxsize=64)
def _start(base: str) -> tuple[str, str] | None:
    """What an absolute and a relative path go behind; None for a base that must be parsed."""
    if not _PLAIN.fullmatch(base):
        return None
    scheme, _, rest = base.partition("?")[0].partition("://")
    host, _, path = rest.partition("/")
    folder = path[: path.rfind("/") + 1]
    if "//" in f"/{folder}" or "/." in f"/{folder}":
        return None
    return f"{scheme}://{host}", f"{scheme}://{host}/{folder}"


def host_of(url: str) -> str:
    """Host name of an absolute URL, lower case."""
    return urlsplit(url).hostname or ""


def _normal(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise UnusableAddress(DropReason.BAD_URL, "relative, and the page has no address")
    if parts.username is not None or parts.password is not None:
        raise UnusableAddress(DropReason.BAD_URL, "names a user")
    host = _host(parts.hostname or "")
    port = parts.port  # may raise
    place = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    path = quote(parts.path or "/", safe=_PATH)
    return urlunsplit((parts.scheme, place, path, quote(parts.query, safe=_PATH + "?"), ""))


def _host(name: str) -> str:
    if not name.isascii():
        name = idna.encode(name, uts46=True).decode()
    if ":" in name:
        name = f"[{name}]"
    if not _HOST.fullmatch(name):
        raise UnusableAddress(DropReason.BAD_URL, f"no host in {name[:80]!r}")
    return name
