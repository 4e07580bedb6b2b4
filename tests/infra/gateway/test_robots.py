"""What robots.txt forbids is never requested; a robots.txt that cannot be read forbids all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from infra.gateway import robots
from infra.gateway.outcomes import Outcome
from tests.infra.gateway.harness import Bench, answer, bench, image, raw, run

URL = "http://shapes.test/private/a.png"
PATH = "/private/a.png"


async def outcome(b: Bench, url: str = URL) -> Outcome:
    b.web.routes.setdefault(PATH, image())
    return (await b.get(url)).attempt.outcome


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ("User-agent: *\nDisallow: /private/", False),
        ("User-agent: *\nDisallow: /", False),
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /\nAllow: /private/a.png", True),
        ("User-agent: *\nDisallow: /*.png$", False),
        ("User-agent: TapirTest\nDisallow: /private", False),
        ("User-agent: TapirTest\nAllow: /\n\nUser-agent: *\nDisallow: /", True),
        ("User-agent: OtherBot\nDisallow: /", True),
        ("User-agent: *\nDisallow: /Private/", True),
        ("", True),
        ("<html>not a robots.txt</html>", True),
        ("\ufeffUser-agent: *\nDisallow: /private/", False),
        ("User-agent: *\r\nDisallow: /private/\r\n", False),
    ],
)
def test_rules(tmp_path: Path, rules: str, allowed: bool) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/robots.txt"] = answer(200, rules)
            expected = Outcome.OK if allowed else Outcome.ROBOTS_DISALLOWED
            assert await outcome(b) is expected
            assert b.web.asked(PATH) == allowed
            (attempt,) = b.attempts(URL)
            assert attempt.permanent
            assert attempt.requested == allowed

    run(test())


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_not_there_allows_all(tmp_path: Path, status: int) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/robots.txt"] = answer(status, "User-agent: *\nDisallow: /")
            assert await outcome(b) is Outcome.OK

    run(test())


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_file_that_cannot_be_read_forbids_all_until_it_can(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots, "_UNREADABLE_LIFETIME", 0.0)

    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/robots.txt"] = answer(status)
            assert await outcome(b) is Outcome.ROBOTS_UNAVAILABLE
            assert not b.attempts(URL)[0].permanent
            assert b.web.asked(PATH) == 0
            b.web.routes["/robots.txt"] = answer(200, "")
            assert await outcome(b) is Outcome.OK

    run(test())


def test_a_file_that_breaks_off_or_hangs_forbids_all(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/robots.txt"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nUser")
            assert await outcome(b) is Outcome.ROBOTS_UNAVAILABLE

    run(test())


def test_a_rate_limit_on_the_file_is_no_permission(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, patience=0.1) as b:
            b.web.routes["/robots.txt"] = answer(429, Retry_After="5")
            assert await outcome(b) is Outcome.RATE_LIMITED
            assert b.attempts(URL)[0].attempt == 0
            assert b.web.asked(PATH) == 0

    run(test())


def test_the_file_is_read_once_for_all_images_of_an_origin(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            urls = [f"http://shapes.test/{number}.png" for number in range(20)]
            for number in range(20):
                b.web.routes[f"/{number}.png"] = image()
            await asyncio.gather(*(b.get(url) for url in urls))
            assert b.web.asked("/robots.txt") == 1
            b.web.routes["other.test/robots.txt"] = answer(200, "User-agent: *\nDisallow: /")
            assert await outcome(b, "http://other.test/0.png") is Outcome.ROBOTS_DISALLOWED

    run(test())


def test_the_file_of_a_redirects_target_counts(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = answer(302, Location="http://other.test/private/a.png")
            b.web.routes["other.test/robots.txt"] = answer(200, "User-agent: *\nDisallow: /private")
            assert await outcome(b, "http://shapes.test/a.png") is Outcome.ROBOTS_DISALLOWED
            assert b.web.asked(PATH) == 0

    run(test())


def test_the_file_may_redirect_but_not_to_a_refused_address(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["shapes.test/robots.txt"] = answer(301, Location="http://other.test/r.txt")
            b.web.routes["other.test/r.txt"] = answer(200, "User-agent: *\nDisallow: /private/")
            assert await outcome(b) is Outcome.ROBOTS_DISALLOWED
            target = f"http://127.0.0.1:{b.web.port}/secret"
            b.web.routes["other.test/robots.txt"] = answer(301, Location=target)
            assert await outcome(b, "http://other.test/b.png") is Outcome.ROBOTS_UNAVAILABLE
            assert b.web.asked("/secret") == 0

    run(test())


def test_a_huge_file_is_read_as_far_as_it_must_be(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            rules = "User-agent: *\nDisallow: /private/\n" + "# filler\n" * 200_000
            b.web.routes["/robots.txt"] = answer(200, rules)
            assert await outcome(b) is Outcome.ROBOTS_DISALLOWED

    run(test())


def test_crawl_delay_slows_the_host_down(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/robots.txt"] = answer(200, "User-agent: *\nCrawl-delay: 0.2")
            for number in range(4):
                b.web.routes[f"/{number}.png"] = image()
            await asyncio.gather(*(b.get(f"http://shapes.test/{n}.png") for n in range(4)))
            times = [entry[0] for entry in b.web.log[1:]]
            assert times[-1] - times[0] >= 0.55

    run(test())


def test_a_crawl_delay_holds_no_longer_than_the_rules_may_be_kept(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, patience=0.1) as b:
            b.web.routes["/robots.txt"] = answer(200, "User-agent: *\nCrawl-delay: 1e300")
            b.web.routes["/0.png"] = image()
            await b.get("http://shapes.test/0.png")
            attempt = (await b.get("http://shapes.test/1.png")).attempt
            assert attempt.outcome is Outcome.RATE_LIMITED
            assert attempt.is_final(b.config.attempts)
            assert attempt.not_before == pytest.approx(time.time() + 86_400, abs=60)

    run(test())


def test_rules_of_many_origins_are_kept_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that could not be read go first."""
    monkeypatch.setattr(robots, "_KEPT_ORIGINS", 6)
    names = [f"h{number}.test" for number in range(8)]

    async def test() -> None:
        async with bench(tmp_path, hosts=("shapes.test", *names)) as b:
            for name in names[:3]:
                b.web.routes[f"{name}/robots.txt"] = answer(500)
            for name in ["shapes.test", *names]:
                await outcome(b, f"http://{name}{PATH}")
            assert len(b.gateway._fetcher._robots._origins) <= 6
            await b.get("http://shapes.test/other.png")
            assert [h for _, _, h, path in b.web.log if path == "/robots.txt"].count(
                "shapes.test"
            ) == 1

    run(test())
