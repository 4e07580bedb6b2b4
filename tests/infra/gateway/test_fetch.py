"""What comes of a URL: by the answer's status, its headers, its body, its redirects, its faults."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from infra.gateway.fetch import retry_after
from infra.gateway.outcomes import Outcome
from tests.infra.gateway.harness import Bench, Handler, answer, bench, image, picture, raw, run

URL = "http://shapes.test/a.png"


def outcome_of(tmp_path: Path, handler: Handler, url: str = URL, **settings: object) -> Outcome:
    """The outcome of a URL whose path is answered by `handler`."""
    found = []

    async def ask() -> None:
        async with bench(tmp_path, **settings) as b:
            b.web.routes["/a.png"] = handler
            found.append(await b.get(url))
            (attempt,) = b.attempts(url)
            assert attempt == found[0].attempt

    run(ask())
    assert (found[0].body is None) == (found[0].attempt.outcome is not Outcome.OK)
    return found[0].attempt.outcome


def test_an_image_comes_with_its_bytes_and_everything_known_of_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = image()
            answer = await b.get(URL)
            attempt = answer.attempt
            assert answer.body == picture()
            assert attempt.sha256 == hashlib.sha256(picture()).hexdigest()
            assert attempt.size == len(picture())
            assert (attempt.outcome, attempt.permanent, attempt.status) == (Outcome.OK, True, 200)
            assert attempt.content_type == "image/png"
            assert attempt.final_url == URL
            assert abs(attempt.started - time.time()) < 5
            assert 0 < attempt.elapsed < 5
            assert b.web.agents == {"TapirTest/1.0 (+https://example.org/bot)"}

    run(test())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (404, Outcome.NOT_FOUND),
        (410, Outcome.NOT_FOUND),
        (401, Outcome.HTTP_4XX),
        (403, Outcome.HTTP_4XX),
        (451, Outcome.HTTP_4XX),
        (408, Outcome.HTTP_4XX),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.HTTP_5XX),
        (503, Outcome.HTTP_5XX),
        (204, Outcome.NOT_AN_IMAGE),
        (304, Outcome.NOT_AN_IMAGE),
        (302, Outcome.NOT_AN_IMAGE),
    ],
)
def test_status(tmp_path: Path, status: int, outcome: Outcome) -> None:
    assert outcome_of(tmp_path, answer(status)) is outcome


@pytest.mark.parametrize(
    ("content_type", "outcome"),
    [
        ("image/png", Outcome.OK),
        ("IMAGE/PNG; charset=binary", Outcome.OK),
        ("application/octet-stream", Outcome.OK),
        ("text/html; charset=utf-8", Outcome.NOT_AN_IMAGE),
        ("application/json", Outcome.NOT_AN_IMAGE),
        ("video/mp4", Outcome.NOT_AN_IMAGE),
    ],
)
def test_content_type(tmp_path: Path, content_type: str, outcome: Outcome) -> None:
    assert outcome_of(tmp_path, image(**{"Content-Type": content_type})) is outcome


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"<svg/>", b"\x00" * 100])
def test_a_body_that_is_no_image_whatever_its_type_says(tmp_path: Path, body: bytes) -> None:
    assert outcome_of(tmp_path, image(body)) is Outcome.NOT_AN_IMAGE


def test_a_body_compressed_without_being_asked_is_unpacked(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = image(gzip.compress(picture()), **{"Content-Encoding": "gzip"})
            assert (await b.get(URL)).body == picture()

    run(test())


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(50_000_000))
    handler = image(bomb, **{"Content-Encoding": "gzip"})
    assert outcome_of(tmp_path, handler, max_bytes=1_000_000) is Outcome.TOO_LARGE


# Bounds and lies


def test_more_bytes_than_allowed_are_refused_by_their_declaration(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9000000\r\n\r\n"
    handler = raw(head, pause=3)
    started = time.monotonic()
    assert outcome_of(tmp_path, handler, max_bytes=1000) is Outcome.TOO_LARGE
    assert time.monotonic() - started < 2  # it was not read


def test_more_bytes_than_allowed_are_refused_when_they_come(tmp_path: Path) -> None:
    sent = []

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))
            sent.append(65_536)

    assert outcome_of(tmp_path, endless, max_bytes=1_000_000) is Outcome.TOO_LARGE
    assert sum(sent) < 20_000_000


def test_a_server_that_never_answers_runs_into_the_idle_limit(tmp_path: Path) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    assert outcome_of(tmp_path, silent, idle_timeout=0.5) is Outcome.TIMEOUT


def test_a_server_that_drips_runs_into_the_total_limit(tmp_path: Path) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    started = time.monotonic()
    assert outcome_of(tmp_path, dripping, total_timeout=1.0) is Outcome.TIMEOUT
    assert time.monotonic() - started < 4


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (HEAD + b"Content-Length: 5000\r\n\r\n" + picture(), Outcome.TRUNCATED),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1000\r\nabc", Outcome.TRUNCATED),
        (HEAD + b"Content-Length: 10\r\n\r\n" + picture(), Outcome.CONNECTION_ERROR),
        (HEAD + b"\r\n" + picture(), Outcome.OK),  # the end of the connection is the end
        (HEAD + b"Content-Length: -5\r\n\r\n" + picture(), Outcome.CONNECTION_ERROR),
        (HEAD + b"Content-Length: lots\r\n\r\n" + picture(), Outcome.CONNECTION_ERROR),
        (HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n" + picture(), Outcome.CONNECTION_ERROR),
        (b"\x16\x03\x01\x00\x00 this is not HTTP", Outcome.CONNECTION_ERROR),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", Outcome.CONNECTION_ERROR),
        (b"", Outcome.CONNECTION_ERROR),
    ],
)
def test_servers_that_lie_or_break_off(tmp_path: Path, content: bytes, outcome: Outcome) -> None:
    assert outcome_of(tmp_path, raw(content)) is outcome


def test_a_closed_port(tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_text('{"hosts": {"shapes.test:80": "127.0.0.1:9"}}')
    hosts = tmp_path / "hosts.json"
    assert outcome_of(tmp_path, answer(), private_hosts=hosts) is Outcome.CONNECTION_ERROR


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            attempt = (await b.get("http://nowhere.test/a.png")).attempt
            assert (attempt.outcome, attempt.permanent) == (Outcome.DNS_ERROR, True)
            assert attempt.detail == "the name does not exist"
            assert not b.web.log

    run(test())


# Redirects


async def follow(b: Bench, start: str = URL) -> Outcome:
    return (await b.get(start)).attempt.outcome


def test_redirects_are_followed_with_each_hop_checked(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(301, Location="/b.png")
            b.web.routes["/b.png"] = answer(302, Location="//other.test/c.png")
            b.web.routes["/c.png"] = image()
            attempt = (await b.get(URL)).attempt
            assert (attempt.outcome, attempt.url) == (Outcome.OK, URL)
            assert attempt.final_url == "http://other.test/c.png"
            assert b.web.asked("/robots.txt") == 2  # one for each origin

    run(test())


@pytest.mark.parametrize(
    ("location", "outcome"),
    [
        ("http://127.0.0.1/b.png", Outcome.REFUSED_ADDRESS),
        ("http://127.0.0.1:PORT/b.png", Outcome.REFUSED_ADDRESS),
        ("http://169.254.169.254/latest/meta-data/", Outcome.REFUSED_ADDRESS),
        ("http://[::ffff:7f00:1]:PORT/b.png", Outcome.REFUSED_ADDRESS),
        ("http://0x7f.1:PORT/b.png", Outcome.REFUSED_ADDRESS),
        ("http://localhost:PORT/b.png", Outcome.REFUSED_ADDRESS),
        ("http://shapes.test:PORT/b.png", Outcome.DNS_ERROR),  # private on port 80 only
        ("file:///etc/passwd", Outcome.REFUSED_SCHEME),
        ("ftp://shapes.test/b.png", Outcome.REFUSED_SCHEME),
        ("http://user@shapes.test/b.png", Outcome.BAD_URL),
        ("http://[::1/b.png", Outcome.BAD_URL),
        ("/a.png", Outcome.REDIRECT_LOOP),
    ],
)
def test_a_redirect_gains_nothing(tmp_path: Path, location: str, outcome: Outcome) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            target = location.replace("PORT", str(b.web.port))
            b.web.routes["/a.png"] = answer(302, Location=target)
            b.web.routes["/b.png"] = image()
            assert await follow(b) is outcome
            assert b.web.asked("/b.png") == 0
            assert b.web.asked("/a.png") == 1

    run(test())


def test_a_circle_of_redirects_is_noticed_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(302, Location="http://other.test/b.png")
            b.web.routes["/b.png"] = answer(302, Location=URL)
            assert await follow(b) is Outcome.REDIRECT_LOOP
            assert (b.web.asked("/a.png"), b.web.asked("/b.png")) == (1, 1)

    run(test())


@pytest.mark.parametrize(("hops", "outcome"), [(5, Outcome.OK), (6, Outcome.REDIRECT_LOOP)])
def test_no_more_than_five_redirects(tmp_path: Path, hops: int, outcome: Outcome) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(302, Location="/1")
            for hop in range(1, hops):
                b.web.routes[f"/{hop}"] = answer(302, Location=f"/{hop + 1}")
            b.web.routes[f"/{hops}"] = image()
            assert await follow(b) is outcome
            assert b.web.asked("/6") == 0

    run(test())


# Retry-After


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after("7") == 7.0
    assert retry_after(" 0 ") == 0.0
    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=2)
    assert retry_after(formatdate(time.time() - 100, usegmt=True)) == 0.0
    for nothing in (None, "", "soon", "-5", "1.5e3"):
        assert retry_after(nothing) is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_is_left_alone_for_as_long_as_it_says(tmp_path: Path, status: int) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(status, Retry_After="2")
            b.web.routes["/b.png"] = image()
            attempt = (await b.get(URL)).attempt
            assert (attempt.outcome, attempt.permanent) == (Outcome.RATE_LIMITED, False)
            assert attempt.not_before == pytest.approx(time.time() + 2, abs=0.5)
            b.web.routes["/a.png"] = image()

            again = await b.get(URL)  # too early: nothing is asked
            assert again.from_journal
            assert again.body is None
            other = await b.get("http://shapes.test/b.png")  # waits for the host
            assert other.attempt.ok
            times = {path: when for when, _, _, path in b.web.log}
            assert times["/b.png"] - times["/a.png"] >= 1.99
            assert (await b.get(URL)).attempt.ok
            assert b.web.asked("/a.png") == 2

    run(test())


def test_a_longer_pause_defers_without_costing_an_attempt(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, patience=0.1) as b:
            b.web.routes["/a.png"] = answer(429, Retry_After="2")
            b.web.routes["/b.png"] = image()
            await b.get(URL)
            other = "http://shapes.test/b.png"
            deferred = (await b.get(other)).attempt
            assert (deferred.outcome, deferred.attempt) == (Outcome.RATE_LIMITED, 0)
            assert not deferred.requested
            elsewhere = await b.get("http://other.test/b.png")
            assert elsewhere.attempt.ok  # other hosts do not wait
            await asyncio.sleep(2.1)
            assert (await b.get(other)).attempt.attempt == 1

    run(test())


def test_a_host_that_fails_again_and_again_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, host_strikes=3) as b:

            async def broken(request: web.Request) -> web.StreamResponse:
                return await raw(b"")(request)

            for number in range(6):
                b.web.routes[f"/{number}"] = broken
                attempt = (await b.get(f"http://shapes.test/{number}")).attempt
                assert (attempt.outcome, attempt.attempt) == (Outcome.CONNECTION_ERROR, 1)
            asked = [entry[3] for entry in b.web.log if entry[3] != "/robots.txt"]
            assert set(asked) == {"/0", "/1", "/2"}
            assert "given up" in attempt.error

    run(test())


def test_rate_and_concurrency_a_host(tmp_path: Path) -> None:
    async def test() -> None:
        under_way, most = 0, 0

        async def slow(request: web.Request) -> web.StreamResponse:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.15)
            under_way -= 1
            return await image()(request)

        async with bench(tmp_path, host_rate=20.0, host_connections=2) as b:
            for number in range(10):
                b.web.routes[f"/{number}"] = slow
            urls = [f"http://shapes.test/{number}" for number in range(10)]
            answers = await asyncio.gather(*(b.get(url) for url in urls))
            assert all(answer.attempt.ok for answer in answers)
            assert most == 2
            times = sorted(entry[0] for entry in b.web.log)
            assert times[-1] - times[1] >= 9 * 0.05 * 0.95

    run(test())
