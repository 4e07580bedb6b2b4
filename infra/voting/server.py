"""The page on which people vote, served by the standard library on loopback.

Who knows the address may vote: its first part is a secret of this start, and everything else is
answered with 404, so that neither other pages in the same browser nor a host name that is turned to
loopback can reach anything. A name that the person types counts each person once; nobody checks
it, because all that have the address are trusted with the vote. Captions are escaped by the
template engine, and nothing on the page comes from elsewhere.

    /TOKEN/            who are you?
    /TOKEN/next        on to the first pair that this person has not seen and that needs votes
    /TOKEN/pairs/ID    two pictures and two questions; posting answers them
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader

from infra.voting.ballot import QUESTIONS, Ballot, Pair
from infra.voting.result import VOTERS
from infra.voting.votes import Votes

_HERE = Path(__file__).parent
_FILES = {"vote.css": "text/css; charset=utf-8", "vote.js": "text/javascript; charset=utf-8"}
_LONGEST_NAME = 60
_LONGEST_BODY = 10_000  # bytes
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = {}


ABSENT = _Answer(HTTPStatus.NOT_FOUND, b"There is nothing here.", "text/plain")


@dataclass
class Booth:
    """What is asked and where answers go; the server's handlers ask it for pages."""

    ballot: Ballot
    votes: Votes
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def __post_init__(self) -> None:
        self.votes.remember(self.ballot)
        self._template = Environment(
            loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
        ).get_template("vote.html.j2")

    def get(self, path: str, person: str | None) -> _Answer:
        """The answer to a reading request; `path` is what follows the token."""
        return self._file(path) or self._for(person, path)

    def _file(self, path: str) -> _Answer | None:
        if path in _FILES:
            return _Answer(HTTPStatus.OK, (_HERE / path).read_bytes(), _FILES[path])
        if path.startswith("pictures/"):
            png = self.ballot.pictures.get(path.removeprefix("pictures/").removesuffix(".png"))
            return _Answer(HTTPStatus.OK, png, "image/png") if png else ABSENT
        return None

    def _for(self, person: str | None, path: str) -> _Answer:
        if path == "":
            return self._page("welcome", person=person or "")
        if person is None:
            return self._to("")
        if path == "next":
            waiting = self._waiting(person)
            return self._to(f"pairs/{waiting[0].key.id}" if waiting else "done")
        if path == "done":
            return self._page("done", person=person)
        pair = self.ballot.by_id.get(path.removeprefix("pairs/"))
        return self._ask(person, pair) if pair else ABSENT

    def post(self, path: str, person: str | None, form: Mapping[str, str]) -> _Answer:
        """The answer to a form."""
        if path == "":
            return self._enter(form.get("person", ""))
        pair = self.ballot.by_id.get(path.removeprefix("pairs/"))
        if pair is None:
            return ABSENT
        if person is None:
            return self._to("")
        left, _ = self.ballot.shown(person, pair)
        try:
            self.votes.cast(person, pair.key, form, left)
        except ValueError:
            return self._ask(person, pair, "Please answer both questions.", form)
        return self._to("next")

    def _enter(self, name: str) -> _Answer:
        person = _known_as(name)
        if person is None:
            problem = f"Please give a name of 1 to {_LONGEST_NAME} letters."
            return self._page("welcome", HTTPStatus.BAD_REQUEST, problem=problem, person="")
        value = base64.urlsafe_b64encode(person.encode()).decode().rstrip("=")
        cookie = f"person={value}; Path=/{self.token}/; HttpOnly; SameSite=Lax; Max-Age=31536000"
        return self._to("next", {"Set-Cookie": cookie})

    def _waiting(self, person: str) -> list[Pair]:
        """Pairs that this person has not voted on and that have fewer than five votes."""
        votes = self.votes.on(self.ballot.by_id)
        return [
            pair
            for pair in self.ballot.order(person)
            if len(votes[pair.key.id]) < VOTERS
            and all(vote.person != person for vote in votes[pair.key.id])
        ]

    def _ask(
        self, person: str, pair: Pair, problem: str = "", chosen: Mapping[str, str] | None = None
    ) -> _Answer:
        given = {v.person: v.chosen for v in self.votes.on([pair.key.id])[pair.key.id]}
        done = sum(
            any(vote.person == person for vote in votes)
            for votes in self.votes.on(self.ballot.by_id).values()
        )
        return self._page(
            "pair", HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK, person=person, pair=pair,
            shown=self.ballot.shown(person, pair), questions=QUESTIONS, problem=problem,
            chosen=chosen or given.get(person, {}), again=person in given,
            done=done, total=done + len(self._waiting(person)),
        )  # fmt: skip

    def _page(self, page: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> _Answer:
        text = self._template.render(page=page, base=f"/{self.token}", **values)
        return _Answer(status, text.encode())

    def _to(self, path: str, headers: Mapping[str, str] | None = None) -> _Answer:
        return _Answer(
            HTTPStatus.SEE_OTHER, headers={"Location": f"/{self.token}/{path}", **(headers or {})}
        )


def _known_as(name: str) -> str | None:
    """A name as it is counted: case and spaces make no other person. None if it will not do."""
    person = " ".join(name.split()).casefold()
    return person if person.isprintable() and 0 < len(person) <= _LONGEST_NAME else None


class VotingServer(ThreadingHTTPServer):
    """Serves one booth; `address` is what people open."""

    daemon_threads = True

    def __init__(self, booth: Booth, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.booth = booth

    @property
    def address(self) -> str:
        """The page's URL, secret included."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/{self.booth.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: VotingServer
    server_version, sys_version = "tapir", ""
    timeout = 30  # seconds that a silent connection may hold a thread

    def do_GET(self) -> None:
        path = self._inside()
        self._send(ABSENT if path is None else self.server.booth.get(path, self._person()))

    def do_POST(self) -> None:
        path, length = self._inside(), self.headers.get("Content-Length", "")
        if path is None:
            self._send(ABSENT)
        elif not length.isdigit() or int(length) > _LONGEST_BODY:
            self._send(_Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
        else:
            body = self.rfile.read(int(length)).decode("utf-8", "replace")
            form = {name: values[-1] for name, values in parse_qs(body).items()}
            self._send(self.server.booth.post(path, self._person(), form))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a log of requests would have the secret in it."""

    def _inside(self) -> str | None:
        """What follows the token in the path; None without it."""
        _, token, path = [*self.path.partition("?")[0].split("/", 2), "", ""][:3]
        wanted = self.server.booth.token
        return path if hmac.compare_digest(token.encode(), wanted.encode()) else None

    def _person(self) -> str | None:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("person")
            value = cookie.value if cookie else ""
            return _known_as(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode())
        except (CookieError, ValueError):
            return None  # a cookie that is none of ours is no person

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        fixed = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        for name, value in {**_HEADERS, **fixed, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
