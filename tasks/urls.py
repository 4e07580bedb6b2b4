"""Addresses as pages write them, made absolute and sendable, the way a browser would.

One spelling for one address keeps keys stable: scheme and host in lower case, no default port, no
fragment, everything outside the characters of RFC 3986 percent-encoded, escapes left as they were.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna

from schemas.records import DropReason

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_IGNORED = re.compile(r"[\t\n\r]")
_ENDS = "".join(map(chr, range(0x21)))  # control characters and space, as WHATWG strips them
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_PORTS = {"http": 80, "https": 443}
_PATH = "/%:@!$&'()*+,;=~"


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
