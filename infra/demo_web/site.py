"""A demo site on disk as its server needs it: routes, and one file with all bodies.

routes.jsonl    what is answered where, one route a line
bodies.bin      the bodies, one behind the other
site.json       variant, seed, counts, host names
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from infra.demo_web.kinds import Policy

ROUTES_FILE, BODIES_FILE, SITE_FILE = "routes.jsonl", "bodies.bin", "site.json"

# In a Location: the port of the server's trap, which nothing may ever connect to.
TRAP_PORT = "{trap}"


class Behaviour(StrEnum):
    """How a route is answered."""

    PLAIN = "plain"
    # 429 with Retry-After for the first `amount` times, then plain.
    THROTTLE = "throttle"
    # The same with a date in Retry-After.
    THROTTLE_DATE = "throttle_date"
    # Plain after `amount` seconds.
    SLOW = "slow"
    # Headers and the first bytes, then silence.
    STALL = "stall"
    # Content-Length says more than is sent before the connection is closed.
    CUT = "cut"
    # A body that goes on for ever.
    ENDLESS = "endless"
    # Headers at once, the body `amount` seconds later, so that it shows who does not wait for it.
    HOLD = "hold"


@dataclass(frozen=True)
class Route:
    """The answer to a GET of `path` (with its query) on `host`, on either scheme.

    Attributes:
        start, size: where the body lies in the file of bodies.
    """

    host: str
    path: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    behaviour: Behaviour = Behaviour.PLAIN
    amount: float = 0.0
    policy: Policy = Policy.OPEN
    start: int = 0
    size: int = 0


@dataclass(frozen=True)
class Site:
    """Routes by (host, path), the bodies, and what `site.json` says."""

    routes: dict[tuple[str, str], Route]
    bodies: bytes
    about: dict[str, Any]

    def body(self, route: Route) -> bytes:
        """The body of a route."""
        return self.bodies[route.start : route.start + route.size]


def write_site(folder: Path, routes: Iterable[tuple[Route, bytes]], about: dict[str, Any]) -> None:
    """Write a site into an existing folder.

    Raises:
        ValueError: if two routes have one address.
    """
    seen: set[tuple[str, str]] = set()
    start = 0
    with (
        (folder / ROUTES_FILE).open("w", encoding="utf-8") as lines,
        (folder / BODIES_FILE).open("wb") as bodies,
    ):
        for route, body in routes:
            address = (route.host, route.path)
            if address in seen:
                raise ValueError(f"two routes for {route.host}{route.path}")
            seen.add(address)
            bodies.write(body)
            placed = replace(route, start=start, size=len(body))
            lines.write(json.dumps(asdict(placed), separators=(",", ":")) + "\n")
            start += len(body)
    text = json.dumps(about, indent=1, sort_keys=True)
    (folder / SITE_FILE).write_text(text + "\n", encoding="utf-8")


def read_site(folder: Path) -> Site:
    """Read a site.

    Raises:
        FileNotFoundError: if there is none in the folder.
    """
    routes = {}
    with (folder / ROUTES_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            fields = json.loads(line)
            fields["headers"] = tuple((name, value) for name, value in fields["headers"])
            fields["behaviour"] = Behaviour(fields["behaviour"])
            fields["policy"] = Policy(fields["policy"])
            route = Route(**fields)
            routes[route.host, route.path] = route
    about = json.loads((folder / SITE_FILE).read_text(encoding="utf-8"))
    return Site(routes, (folder / BODIES_FILE).read_bytes(), about)
