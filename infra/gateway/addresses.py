"""Which URLs and addresses may be reached.

Only global unicast addresses are. Python's `is_global` is not enough by itself: it follows the
version of the standard library, lets multicast through, and says nothing of an IPv4 address that
travels inside an IPv6 one. Sources: the IANA special-purpose address registries (RFC 6890),
RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from yarl import URL

from infra.gateway.outcomes import Outcome, Refused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_DENIED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation, as are 198.51.100.0/24 and 203.0.113.0/24
        "192.31.196.0/24",  # AS112, as is 192.175.48.0/24
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")  # the only space given out for global unicast
_DENIED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation, as is 3fff::/20
        "2002::/16",  # 6to4: carries any IPv4 address, and nothing honest uses it any more
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # upper half of the interface identifier
# Characters of RFC 3986; anything else must be quoted before it is sent.
_SENDABLE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
MAX_URL = 8192  # characters; servers take no more in a request line


@lru_cache(maxsize=65_536)
def why_refused(text: str) -> str | None:
    """Why an address may not be reached, or None if it may.

    Args:
        text: an IPv4 or IPv6 address as the resolver gives it, perhaps with a zone.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no address"
    if isinstance(address, ipaddress.IPv4Address):
        return _why_refused_v4(address)
    return _why_refused_v6(address)


def _why_refused_v4(address: ipaddress.IPv4Address) -> str | None:
    if any(address in network for network in _DENIED_V4) or not address.is_global:
        return f"{address} is not a global address"
    return None


def _why_refused_v6(address: ipaddress.IPv6Address) -> str | None:
    if address.scope_id is not None:
        return f"{address} names a zone of this machine"
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return f"{address} holds {inner}, which is not global" if _why_refused_v4(inner) else None
    denied = any(address in network for network in _DENIED_V6)
    if denied or address not in _GLOBAL_V6 or not address.is_global:
        return f"{address} is not a global address"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return f"{address} holds {inner}, which is not global" if _why_refused_v4(inner) else None
    return None


def parse_url(text: str) -> URL:
    """The URL to request, without its fragment.

    Raises:
        Refused: BAD_URL if there is none in the text, or it carries a user name or password;
            REFUSED_SCHEME if it is not http or https.
    """
    if len(text) > MAX_URL:
        raise Refused(Outcome.BAD_URL, f"the URL has {len(text)} characters")
    try:
        # What can be sent as it stands is: requoting would break signed URLs.
        url = URL(text, encoded=_SENDABLE.fullmatch(text) is not None)
        port, host = url.port, url.raw_host  # both are parsed on demand and may raise
        if host is not None and host != host.lower():
            url = url.with_host(host.lower())
    except ValueError as error:
        raise Refused(Outcome.BAD_URL, f"no URL: {error}") from error
    if url.scheme not in ("http", "https"):
        raise Refused(Outcome.REFUSED_SCHEME, f"scheme {url.scheme or 'missing'!r}")
    if not host or not port or url.raw_user is not None or url.raw_password is not None:
        raise Refused(Outcome.BAD_URL, "the URL has no host or port, or names a user")
    return url.with_fragment(None)


def check_host(url: URL) -> None:
    """Refuse a host that is written as an address, unless that is a global one in its usual form.

    A name is checked when it is resolved (`infra.gateway.resolver`); an address written out is
    never resolved, so it is checked here.

    Raises:
        Refused: REFUSED_ADDRESS.
    """
    host = (url.raw_host or "").rstrip(".")
    if ":" in host:
        reason = why_refused(host)
    elif _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        # The WHATWG rule: a host whose last label is a number is an IPv4 address. Decimal, octal,
        # hexadecimal and shortened forms only serve to hide one.
        usual = re.fullmatch(r"(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}", host)
        reason = why_refused(host) if usual else f"{host!r} is an address in an unusual form"
    elif host == "localhost" or host.endswith(".localhost"):
        reason = f"{host!r} is this machine (RFC 6761)"
    else:
        return
    if reason is not None:
        raise Refused(Outcome.REFUSED_ADDRESS, reason)
