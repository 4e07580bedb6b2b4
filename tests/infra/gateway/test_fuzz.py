"""Whatever stands in a page or comes from a server, an attempt ends with an outcome."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from infra.gateway.addresses import check_host, parse_url
from infra.gateway.fetch import retry_after
from infra.gateway.journal import JournalReader
from infra.gateway.optout import opt_out, signals
from infra.gateway.outcomes import Attempt, Outcome, Refused, url_key
from infra.image_types import image_type
from tests.infra.gateway.harness import answer, bench, image, picture, raw, run

SHARED = [HealthCheck.function_scoped_fixture]  # a folder that the examples have in common
HOSTS = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"[0-9a-fx.:\[\]%]{1,40}", fullmatch=True),
    st.sampled_from(["a" * 64 + ".test", "a..b", ".", "-", "xn--", "xn--a.test", "%00", "*"]),
)
URLS = st.one_of(
    st.text(max_size=200),
    st.builds(
        "{}://{}{}".format, st.sampled_from(["http", "https", "HTTP", "x", ""]), HOSTS, st.text()
    ),
)


@settings(max_examples=500, deadline=None)
@given(URLS)
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
        check_host(url)
    except Refused:
        return
    assert url.scheme in ("http", "https")
    assert url.raw_host == (url.raw_host or "").lower()


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text(), st.text(), st.text())
def test_any_header_is_read(robots: str, tdm: str, usage: str, wait: str) -> None:
    headers = CIMultiDict({"X-Robots-Tag": robots, "TDM-Reservation": tdm, "Content-Usage": usage})
    opt_out(headers, "tapirtest")
    signals(headers)
    found = retry_after(wait)
    assert found is None or found >= 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_image_or_not(content: bytes) -> None:
    assert image_type(content) is None or content


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(urls=st.lists(URLS, max_size=20))
def test_any_url_ends_with_an_outcome(tmp_path: Path, urls: list[str]) -> None:
    async def test() -> None:
        async with bench(tmp_path, attempts=1) as b:
            for url in urls:
                if url.encode(errors="replace").decode() == url:
                    assert not (await b.get(url)).attempt.ok

    run(test())


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "xn--a.test", "xn--", "-.test"])
def test_names_that_the_systems_resolver_cannot_write(tmp_path: Path, host: str) -> None:
    async def test() -> None:
        async with bench(tmp_path, hosts=()) as b:
            resolver = b.gateway._fetcher._connections._resolver
            resolver._lookup = resolver._system_lookup
            attempt = (await b.get(f"http://{host}/a.png")).attempt
            assert attempt.outcome in (Outcome.DNS_ERROR, Outcome.BAD_URL)

    run(test())


@settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
@given(
    locations=st.lists(st.one_of(URLS, st.text(max_size=50)), max_size=8),
    replies=st.lists(st.binary(max_size=200), max_size=8),
)
def test_any_redirect_and_any_reply_ends_with_an_outcome(
    tmp_path: Path, locations: list[str], replies: list[bytes]
) -> None:
    async def test() -> None:
        async with bench(tmp_path, attempts=1, host_strikes=1000) as b:
            for number, location in enumerate(locations):
                line = location.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")
                head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + line
                b.web.routes[f"/redirect/{number}"] = raw(head + b"\r\n\r\n")
            for number, reply in enumerate(replies):
                b.web.routes[f"/reply/{number}"] = raw(reply)
                b.web.routes[f"/body/{number}"] = image(reply)
            paths = [path for path in b.web.routes if path.startswith("/")]
            answers = await asyncio.gather(*(b.get(f"http://shapes.test{p}") for p in paths))
            assert len(answers) == len(paths)

    run(test())


LINES = st.binary(max_size=60).map(lambda line: line.translate(None, b"\r\n\0"))


@pytest.mark.parametrize(
    "header", [b"Content-Type: image/png\xff", b"X-Robots-Tag: caf\xe9", b"Content-Type: caf\xe9"]
)
def test_a_header_that_is_no_utf8_costs_its_url_only(tmp_path: Path, header: bytes) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            head = b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n"
            b.web.routes["/hostile"] = raw(head % (header, len(picture())) + picture())
            urls = [f"http://shapes.test/{number}" for number in range(5)]
            for number in range(5):
                b.web.routes[f"/{number}"] = image()
            hostile = "http://shapes.test/hostile"
            answers = await asyncio.wait_for(
                asyncio.gather(*(b.get(url) for url in (hostile, *urls))), 10
            )
            assert all(answer.attempt.ok for answer in answers[1:])
            (row,) = b.attempts(hostile)
            assert row == answers[0].attempt
            assert "\N{REPLACEMENT CHARACTER}" in row.content_type + row.signals

    run(test())


@settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
@given(
    headers=st.lists(
        st.tuples(st.sampled_from([b"Content-Type", b"X-Robots-Tag", b"Content-Usage"]), LINES),
        min_size=1,
        max_size=8,
    ),
    status=st.sampled_from([200, 302, 404, 500]),
)
def test_any_header_of_an_answer_reaches_the_journal(
    tmp_path: Path, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    async def test() -> None:
        async with bench(tmp_path, attempts=1, host_strikes=1000) as b:
            for number, (name, line) in enumerate(headers):
                head = b"HTTP/1.1 %d x\r\n%s: %s\r\nContent-Length: 4\r\nLocation: /%s\r\n\r\nbody"
                b.web.routes[f"/{status}/{number}"] = raw(head % (status, name, line, line))
            urls = [f"http://shapes.test/{status}/{number}" for number in range(len(headers))]
            with JournalReader(b.config.journal) as journal:  # of the examples before
                journal.reopen([url_key(url) for url in urls])
            answers = await asyncio.wait_for(asyncio.gather(*(b.get(url) for url in urls)), 10)
            standing = {row.key: row for row in b.attempts(*urls)}
            assert list(standing.values()) == sorted(
                (answer.attempt for answer in answers), key=lambda attempt: attempt.key
            )

    run(test())


TEXT = st.text(alphabet=st.characters(), max_size=50).map(lambda text: text * 40)


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT, TEXT)
def test_any_text_can_be_stored(one: str, two: str, three: str) -> None:
    attempt = Attempt("k", "http://shapes.test/", 1, content_type=one, detail=two, error=three)
    attempt.make_storable()
    for text, longest in (
        (attempt.content_type, 200),
        (attempt.detail, 500),
        (attempt.error, 1000),
    ):
        assert len(text.encode("utf-8").decode("utf-8")) <= longest
        assert "\0" not in text


def test_a_server_that_says_429_for_a_while_costs_little_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with bench(tmp_path, host_connections=4, attempts=2) as b:
            loop = asyncio.get_running_loop()
            calm = loop.time() + 2.5
            refusals = []

            async def limited(request: web.Request) -> web.StreamResponse:
                if loop.time() < calm:
                    refusals.append(request.path)
                    return await answer(429, Retry_After="1")(request)
                return await image()(request)

            urls = [f"http://shapes.test/{number}.png" for number in range(60)]
            for number in range(60):
                b.web.routes[f"/{number}.png"] = limited
            b.web.routes["/robots.txt"] = answer(404)
            left = urls
            for _ in range(2):
                answers = await asyncio.gather(*(b.get(url) for url in left))
                left = [u for u, a in zip(left, answers, strict=True) if not a.attempt.ok]
            assert not left
            assert len(refusals) <= 4 * 3  # those under way when each pause began
            assert {a.key for a in b.attempts(*urls)} == {url_key(url) for url in urls}

    run(test())
