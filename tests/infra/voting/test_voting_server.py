"""The server answers only who knows its address, and survives what is sent to it."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from infra.voting.ballot import Ballot, Pair, Side
from infra.voting.server import Booth, VotingServer
from infra.voting.votes import Votes

PAIR = Pair("<b>a cat</b>", b"first", b"second")
ANSWER = {"realistic": PAIR.key.first, "matching": PAIR.key.second}
ANNA = "person=" + base64.urlsafe_b64encode(b"anna").decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VotingServer]:
    ballot = Ballot(Side("one", "1" * 64), Side("two", "2" * 64), (PAIR,))
    with VotingServer(Booth(ballot, Votes(tmp_path / "votes.sqlite"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: VotingServer, method: str, path: str, form: dict[str, str] | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    body = None if form is None else urlencode(form)
    connection.request(method, path.replace("TOKEN", server.booth.token), body, headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def cast(server: VotingServer) -> int:
    votes = server.booth.votes.on([PAIR.key.id])
    return len(votes[PAIR.key.id])


def test_it_listens_on_loopback_alone(server: VotingServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address.startswith(f"http://127.0.0.1:{server.server_port}/")


@pytest.mark.parametrize(
    "path", ["/", "/next", "*", "/TOKENx/", "/x/next", "/TOKEN/../next", "/TOKEN/x"]
)
def test_without_the_secret_there_is_nothing(server: VotingServer, path: str) -> None:
    for method, form in (("GET", None), ("POST", ANSWER)):
        status, _, text = ask(server, method, path, form, Cookie=ANNA)
        assert (status, text) == (404, "There is nothing here.")


def test_every_answer_forbids_what_is_foreign(server: VotingServer) -> None:
    for path in ("/TOKEN/", f"/TOKEN/pairs/{PAIR.key.id}", "/TOKEN/vote.js", "/nothing"):
        _, headers, text = ask(server, "GET", path, Cookie=ANNA)
        policy = headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= {*policy}
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "<b>" not in text


def test_a_vote_needs_a_person_and_two_answers(server: VotingServer) -> None:
    path = f"/TOKEN/pairs/{PAIR.key.id}"
    assert ask(server, "POST", path, ANSWER)[1]["Location"].endswith("/")
    assert ask(server, "POST", path, ANSWER, Cookie="person=####")[0] == 303
    assert ask(server, "POST", path, {"realistic": PAIR.key.first}, Cookie=ANNA)[0] == 400
    assert ask(server, "POST", path, {**ANSWER, "matching": "f" * 64}, Cookie=ANNA)[0] == 400
    assert cast(server) == 0
    assert ask(server, "POST", path, ANSWER, Cookie=ANNA)[1]["Location"].endswith("/next")
    assert cast(server) == 1
    assert ask(server, "GET", "/TOKEN/next", Cookie=ANNA)[1]["Location"].endswith("/done")


def test_a_pair_with_five_votes_is_shown_to_nobody_else(server: VotingServer) -> None:
    for number in range(5):
        server.booth.votes.cast(str(number), PAIR.key, ANSWER, PAIR.key.first)
    assert ask(server, "GET", "/TOKEN/next", Cookie=ANNA)[1]["Location"].endswith("/done")


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x00b", "\u202e"])
def test_a_name_that_is_none_is_asked_for_again(server: VotingServer, name: str) -> None:
    status, headers, text = ask(server, "POST", "/TOKEN/", {"person": name})
    assert (status, "Set-Cookie" in headers) == (400, False)
    assert "Please give a name" in text


def test_a_long_body_is_not_read(server: VotingServer) -> None:
    for length in ("1000000000", "-1", "x"):
        headers = {"Content-Length": length, "Cookie": ANNA}
        status, _, _ = ask(server, "POST", f"/TOKEN/pairs/{PAIR.key.id}", **headers)
        assert status == 413
