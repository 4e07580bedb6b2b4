"""Drop pairs of domains that are not wanted: the page's and the image's, subdomains included."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import model_validator

from infra.work import Work
from schemas.artifact import Unit
from schemas.records import DropReason
from tasks.filters import FilterParams, Objection
from tasks.lexicon.lists import prepare_list, read_list


class Params(FilterParams):
    """The list.

    Attributes:
        domains: such as `example.com`, which stands for `www.example.com`, too.
        files: paths, globs or URLs of lists, a domain a line.
    """

    domains: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if not self.domains and not self.files:
            raise ValueError("give domains, or files that list them")
        return self

    def sources(self) -> tuple[str, ...]:
        """The lists."""
        return self.files


def prepare(params: Params, parts: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """The domains of the files, the same for every part."""
    return (prepare_list(params.files, _normal, work),) * len(parts) if params.files else ()


class Filter:
    """Looks for the hosts, and the domains that they belong to, in the list."""

    def __init__(self, params: Params, prepared: Path | None = None) -> None:
        listed = read_list(prepared) if prepared else []
        self._blocked = frozenset([*map(_normal, params.domains), *listed])

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """BLOCKED_DOMAIN."""
        hosts = {pair["domain"], _host(pair["image_url"])}
        for host in sorted(hosts):
            labels = host.split(".")
            for start in range(len(labels)):
                domain = ".".join(labels[start:])
                if domain in self._blocked:
                    return Objection(DropReason.BLOCKED_DOMAIN, domain)
        return None


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # no address, which is for others to say
        return ""


def _normal(domain: str) -> str:
    """As host names are written: lower case, ASCII, no dot around."""
    name = domain.strip().strip(".").lower()
    return name if name.isascii() else name.encode("idna").decode()
