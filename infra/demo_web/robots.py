"""The robots.txt of each host of a site, in the forms in which real ones come."""

from __future__ import annotations

from infra.demo_web.dialect import Hosts
from infra.demo_web.items import Answer
from infra.demo_web.site import Route

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)

# Addressed to others: who obeys only the groups for everybody or for itself may pass.
_FOR_OTHERS = "User-agent: ExampleBot\nUser-agent: OtherBot\nDisallow: /\n"


def robots_answers(hosts: Hosts) -> list[Answer]:
    """A route for robots.txt on every host."""
    return [_answer(hosts, host, number) for number, host in enumerate(hosts.names())]


def _answer(hosts: Hosts, host: str, number: int) -> Answer:
    if host == hosts.broken:
        return Route(host, "/robots.txt", 503, _TEXT), b"try again later\n"
    if host == hosts.closed:
        return _file(host, f"# Not for robots.\n{_FOR_OTHERS}\nUser-Agent: *\nDisallow: /\n")
    prefixes = [prefix for origin, prefix in hosts.forbidding if origin.endswith("//" + host)]
    if prefixes:
        rules = "".join(f"disallow: {prefix}  # ask first\n" for prefix in prefixes)
        allowed = f"Allow: {prefixes[0]}welcome.html\n"
        return _file(host, f"{_FOR_OTHERS}\nuser-agent: *\n{allowed}{rules}")
    if number % 2:
        return Route(host, "/robots.txt", 404, _TEXT), b"no such file\n"
    return _file(host, f"{_FOR_OTHERS}\nUser-agent: *\nDisallow:\n")


def _file(host: str, text: str) -> Answer:
    return Route(host, "/robots.txt", 200, _TEXT), text.encode()
