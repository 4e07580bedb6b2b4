"""What headers forbid is found, what they permit is not, and a forbidden body is never read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from multidict import CIMultiDict

from infra.gateway.optout import opt_out, signals
from infra.gateway.outcomes import Outcome
from tests.infra.gateway.harness import answer, bench, image, picture, run

URL = "http://shapes.test/a.png"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Robots-Tag": "noai"},
        {"X-Robots-Tag": "NoAI, NoImageAI"},
        {"x-robots-tag": "noarchive, noimageai"},
        {"X-Robots-Tag": "noindex"},
        {"X-Robots-Tag": "tapirtest: noai"},
        {"X-Robots-Tag": "TapirTest: noindex, noai"},
        {"X-Robots-Tag": "*: noai"},
        {"X-Robots-Tag": "otherbot: nofollow, tapirtest: noai"},
        {"X-Robots-Tag": "unavailable_after: 25 Jun 2030 15:00:00 PST, noai"},
        {"X-Robots-Tag": "max-image-preview: none, noimageai"},
        {"TDM-Reservation": "1"},
        {"tdm-reservation": " 1 "},
        {"Content-Usage": "ai=n"},
        {"Content-Usage": "train-ai=n, search=y"},
        {"Content-Usage": "search=y, train-genai=n;exp=1"},
        {"Content-Usage": "bots=n"},
        {"Content-Usage": "tdm=n"},
        {"Content-Usage": "train-ai=y, train-genai=n"},
        {"Content-Usage": "train-ai=n, train-genai=y"},
        {"Content-Usage": "bots=n, train-ai=y"},
        {"Content-Usage": "all = N"},
        {"Content-Usage": "ai-use=y, train-ai=?0"},
        {"Content-Signal": "search=yes, ai-train=no"},
    ],
)
def test_headers_that_forbid(headers: dict[str, str]) -> None:
    assert opt_out(CIMultiDict(headers), "tapirtest")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Robots-Tag": "all"},
        {"X-Robots-Tag": "noarchive, nofollow, max-snippet: 50"},
        {"X-Robots-Tag": "otherbot: noai"},
        {"X-Robots-Tag": "otherbot: noai, noimageai"},
        {"X-Robots-Tag": "otherbot: noai, tapirtest: nofollow"},
        {"X-Robots-Tag": "noaiming"},
        {"TDM-Reservation": "0"},
        {"TDM-Reservation": ""},
        {"TDM-Policy": "https://shapes.test/policy.json"},
        {"Content-Usage": "search=n"},
        {"Content-Usage": "train-ai=y"},
        {"Content-Usage": "ai-use=n, ai-input=n, train-ai=y"},
        {"Content-Usage": "small=n, no-bots=n, ai.example=n, train-ai=none"},
        {"Content-Usage": ""},
        {"Content-Signal": "search=no, ai-train=yes"},
    ],
)
def test_headers_that_do_not(headers: dict[str, str]) -> None:
    assert opt_out(CIMultiDict(headers), "tapirtest") is None


def test_every_line_of_a_repeated_header_counts() -> None:
    headers = CIMultiDict([("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noai")])
    assert opt_out(headers, "tapirtest") == "X-Robots-Tag: noai"
    assert signals(headers) == "x-robots-tag: nofollow; x-robots-tag: noai"


def test_the_directives_that_forbid_can_be_chosen() -> None:
    headers = CIMultiDict({"X-Robots-Tag": "noindex"})
    assert opt_out(headers, "tapirtest", frozenset({"noai"})) is None


def test_signals_are_noted_although_they_permit(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = image(**{"TDM-Reservation": "0"})
            attempt = (await b.get(URL)).attempt
            assert attempt.ok
            assert attempt.signals == "tdm-reservation: 0"

    run(test())


@pytest.mark.parametrize("header", ["X-Robots-Tag: noai", "tdm-reservation: 1"])
def test_the_body_of_a_forbidden_image_is_not_read(tmp_path: Path, header: str) -> None:
    """The server sends the headers, waits, and sees the connection closed before the body."""
    seen = []

    async def forbidding(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(  # type: ignore[attr-defined]
            f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n{header}\r\n"
            f"Content-Length: {len(picture())}\r\n\r\n".encode()
        )
        for _ in range(100):
            await asyncio.sleep(0.01)
            if transport.is_closing():
                break
        seen.append(transport.is_closing())
        raise asyncio.CancelledError

    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = forbidding
            answer = await b.get(URL)
            await asyncio.sleep(0.05)
            assert answer.attempt.outcome is Outcome.OPTED_OUT
            assert answer.attempt.permanent
            assert answer.attempt.detail.lower() == header.lower()
            assert answer.attempt.size is None
            again = await b.get(URL)
            assert again.from_journal
            assert b.web.asked("/a.png") == 1
        assert seen == [True]
        assert not [p for p in b.config.spool.rglob("*") if p.is_file()]

    run(test())


def test_a_redirect_may_forbid_as_well(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(302, Location="/b.png", X_Robots_Tag="noai")
            b.web.routes["/b.png"] = image()
            assert (await b.get(URL)).attempt.outcome is Outcome.OPTED_OUT
            assert b.web.asked("/b.png") == 0

    run(test())


def test_an_error_page_that_forbids_is_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(404, X_Robots_Tag="noindex")
            assert (await b.get(URL)).attempt.outcome is Outcome.NOT_FOUND

    run(test())
