"""A host's wishes hold however many others are asked, and waiting for it has an end."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from infra.gateway import hosts
from infra.gateway.hosts import Hosts
from infra.gateway.journal import JournalReader
from infra.gateway.outcomes import Attempt, Deferred, Outcome, Refused, url_key
from tests.infra.gateway.harness import Bench, answer, bench, image, run

OTHERS = tuple(f"h{number}.test" for number in range(12))


def crawl_delay(seconds: float) -> str:
    return f"User-agent: *\nCrawl-delay: {seconds}"


def test_crawl_delay_holds_after_many_other_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_KEPT_HOSTS", 4)

    async def test() -> None:
        async with bench(tmp_path, hosts=("slow.test", *OTHERS)) as b:
            b.web.routes["slow.test/robots.txt"] = answer(200, crawl_delay(0.4))
            for number in range(4):
                b.web.routes[f"/{number}.png"] = image()
            await b.get("http://slow.test/0.png")
            await asyncio.sleep(0.4)  # nothing but the rules is to be remembered of it now
            for other in OTHERS:
                await b.get(f"http://{other}/0.png")
            await asyncio.gather(*(b.get(f"http://slow.test/{n}.png") for n in (1, 2, 3)))
            times = [t for t, _, host, path in b.web.log if host == "slow.test" and "png" in path]
            gaps = [after - before for before, after in itertools.pairwise(times)]
            assert len(gaps) == 3
            assert min(gaps) >= 0.38

    run(test())


def test_a_host_that_wants_a_pause_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_KEPT_HOSTS", 4)

    async def test() -> None:
        known = Hosts(0.0, 8, 32, 10.0, 300.0)
        known.slow_down("slow.test", 60.0)
        for name in ("slow.test", *OTHERS):
            async with known.slot(name):
                pass
        assert len(known._hosts) <= 5
        with pytest.raises(Deferred):
            async with known.slot("slow.test"):
                raise AssertionError("a request was made")

    run(test())


async def fail(known: Hosts, name: str) -> None:
    with pytest.raises(Refused):
        async with known.slot(name):
            raise Refused(Outcome.DNS_ERROR, "the name does not exist")


def test_dead_hosts_take_neither_time_nor_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "_MOST_HOSTS", 12_000)

    async def test() -> None:
        known = Hosts(0.0, 8, 2, 10.0, 300.0)
        for number in range(12_000):
            await fail(known, f"{number}.test")
        await fail(known, "dead.test")
        await fail(known, "dead.test")
        begin = time.process_time()
        for number in range(4_000):
            async with known.slot(f"new-{number}.test"):
                pass
        # A look at each dead host for each new one took 2.7 ms, 10 s in all.
        assert time.process_time() - begin < 2.0
        assert len(known._hosts) <= 12_000
        with pytest.raises(Refused, match="dns_error"):  # given up, so nothing was asked
            async with known.slot("dead.test"):
                raise AssertionError("a request was made")

    run(test())


def test_a_host_in_use_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_KEPT_HOSTS", 2)
    monkeypatch.setattr(hosts, "_MOST_HOSTS", 2)

    async def test() -> None:
        known = Hosts(0.0, 1, 32, 10.0, 300.0)
        async with known.slot("busy.test"):
            for number in range(20):
                await fail(known, f"{number}.test")
            second = asyncio.create_task(known.slot("busy.test").__aenter__())
            await asyncio.sleep(0.05)
            assert not second.done()  # there is one place only, and it is taken
        await second
        assert len(known._hosts) <= 3

    run(test())


def test_each_deferred_request_is_given_a_turn_of_its_own_as_far_as_is_worth_waiting() -> None:
    async def turns(known: Hosts, count: int) -> list[float]:
        found = []
        for _ in range(count):
            with pytest.raises(Deferred) as deferred:
                async with known.slot("slow.test"):
                    raise AssertionError("a request was made")
            found.append(deferred.value.wait)
        return found

    async def test() -> None:
        known = Hosts(10.0, 8, 32, 10.0, 100.0)
        known.slow_down("slow.test", 30.0)
        async with known.slot("slow.test"):
            pass
        assert await turns(known, 6) == pytest.approx([30, 60, 90, 120, 120, 120], abs=1)

    run(test())


async def settle(b: Bench, urls: list[str]) -> None:
    """Ask as a collection does: each URL when it is due, until all outcomes are final."""
    pending = urls
    while pending:
        answers = await asyncio.gather(*(b.get(url) for url in pending))
        left = [a.attempt for a in answers if not a.attempt.is_final(b.config.attempts)]
        pending = [attempt.url for attempt in left]
        if left:
            first = min(attempt.not_before or 0.0 for attempt in left)
            await asyncio.sleep(max(0.0, first - time.time()))


def test_a_slow_hosts_many_images_end_within_the_longest_wait(tmp_path: Path) -> None:
    """40 images, a delay beyond `patience`: as many as fit into the wait come, at few rows."""

    async def test() -> None:
        async with bench(tmp_path, patience=0.2, longest_wait=2.0) as b:
            b.web.routes["shapes.test/robots.txt"] = answer(200, crawl_delay(0.4))
            urls = [f"http://shapes.test/{number}.png" for number in range(40)]
            for number in range(40):
                b.web.routes[f"/{number}.png"] = image()
            begin = time.monotonic()
            await settle(b, urls)
            assert time.monotonic() - begin < 2 * 2.0
            rows = b.attempts(*urls)
            last = {row.key: row for row in rows}
            assert set(last) == {url_key(url) for url in urls}
            ok = [row for row in last.values() if row.ok]
            late = [row for row in last.values() if not row.ok]
            assert 4 <= len(ok) <= 6
            assert {(row.outcome, row.permanent) for row in late} == {(Outcome.RATE_LIMITED, False)}
            assert {row.detail for row in late} == {"the host wants to be left alone for too long"}
            assert len(rows) <= 40 + 2 * len(ok)
            times = sorted(when for when, _, _, path in b.web.log if path != "/robots.txt")
            assert all(later - one >= 0.38 for one, later in itertools.pairwise(times))

    run(test())


def test_pauses_add_up_over_redirects_and_a_reopened_url_waits_anew(tmp_path: Path) -> None:
    """Each time its turn comes, the host has just been asked for another image."""

    async def test() -> None:
        async with bench(tmp_path, patience=0.0, longest_wait=0.5) as b:
            b.web.routes["/a.png"] = answer(302, Location="http://other.test/b.png")
            b.web.routes["/b.png"] = image()
            url, limiter = "http://shapes.test/a.png", b.gateway._fetcher._hosts
            await b.get("http://other.test/c.png")
            for _ in range(10):
                limiter._host("other.test").resume = time.monotonic() + 0.2
                attempt = (await b.get(url)).attempt
                if attempt.is_final(b.config.attempts):
                    break
                assert attempt.attempt == 0
                await asyncio.sleep(0.22)
            waits = [(row.not_before or 0.0) - row.started for row in b.attempts(url)]
            assert len(waits) == 3
            assert sum(waits[:2]) <= 0.5 < sum(waits)
            assert (await b.get(url)).from_journal
            with JournalReader(b.config.journal) as journal:
                journal.reopen([url_key(url)])
            assert b.gateway._journal.waited(url_key(url)) == 0.0
            attempt = (await b.get(url)).attempt
            assert attempt.deferred and not attempt.is_final(b.config.attempts)

    run(test())


def test_an_attempt_that_was_answered_429_was_not_deferred() -> None:
    limited = Attempt("", "", 1, Outcome.RATE_LIMITED, requested=True, not_before=1.0)
    assert limited.deferred
    limited.status = 429
    assert not limited.deferred
