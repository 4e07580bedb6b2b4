"""Drop pairs of domains that are not wanted: the page's and the image's, subdomains included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.work import Work
from schemas.artifact import Unit
from schemas.records import DropReason
from tasks.filters import Objection
from tasks.lexicon.lists import Listing, prepare_list, read_list

_USUAL = re.compile(r"https?://([a-z0-9.-]+)(?::\d*)?(?:[/?#]|$)")  # URLs, whose host is plain


class Params(Listing):
    """The list.

    Attributes:
        domains: such as `example.com`, which stands for `www.example.com`, too.
    """

    domains: tuple[str, ...] = ()


def prepare(params: Params, parts: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """The domains of the files, the same for every part."""
    return prepare_list(params, parts, _normal, work)


class Filter:
    """Looks for the hosts, and the domains that they belong to, in the list."""

    def __init__(self, params: Params, prepared: Path | None = None) -> None:
        self._blocked = frozenset([*map(_normal, params.domains), *read_list(prepared)])

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """BLOCKED_DOMAIN."""
        domain, host = pair["domain"], _host(pair["image_url"])
        for one in (domain,) if host == domain else sorted((domain, host)):
            if (found := self._blocked_part(one)) is not None:
                return Objection(DropReason.BLOCKED_DOMAIN, found)
        return None

    def _blocked_part(self, host: str) -> str | None:
        """The host, or the first of the domains that it belongs to, that is in the list."""
        dot = "."
        while dot:
            if host in self._blocked:
                return host
            _, dot, host = host.partition(".")
        return None


def _host(url: str) -> str:
    usual = _USUAL.match(url)
    if usual is not None:
        return usual[1].rstrip(".")
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # no address, which is for others to say
        return ""


def _normal(domain: str) -> str:
    """As host names are written: lower case, ASCII, no dot around."""
    name = domain.strip().strip(".").lower()
    return name if name.isascii() else name.encode("idna").decode()
