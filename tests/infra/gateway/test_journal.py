"""The journal survives a kill, and the spool serves again what was fetched before it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from infra.gateway.journal import Journal, JournalReader
from infra.gateway.outcomes import Attempt, Outcome, url_key
from infra.gateway.spool import Spool
from infra.gateway.table import UrlTable
from tests.infra.gateway.harness import answer, bench, image, picture, run

URL = "http://shapes.test/a.png"


def attempt(number: int, outcome: Outcome = Outcome.OK, attempt: int = 1) -> Attempt:
    url = f"http://shapes.test/{number}.png"
    return Attempt(url_key(url), url, attempt, outcome, permanent=True, requested=True, status=200)


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")
        one, two, three = attempt(1, Outcome.TIMEOUT), attempt(1, attempt=2), attempt(2)
        for entry in (one, two, three):
            await journal.append(entry)
        assert journal.last(one.key) == two
        assert journal.last("0" * 32) is None
        with JournalReader(tmp_path / "journal.sqlite") as reader:
            assert reader.standing([one.key, three.key]) == {one.key: two, three.key: three}
            assert list(reader.attempts([one.key])) == [one, two]
            assert reader.counts() == {"ok": 2, "requests": 3}
        await journal.close()

    run(test())


def test_a_url_that_is_reopened_counts_as_never_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")
        one, other = attempt(1, Outcome.CONNECTION_ERROR, attempt=2), attempt(2)
        for entry in (one, other):
            await journal.append(entry)
        with JournalReader(tmp_path / "journal.sqlite") as reader:
            reader.reopen([one.key, "0" * 32])
            assert not reader.standing([one.key])[one.key].is_final(attempts=1)
            assert reader.standing([other.key]) == {other.key: other}
            assert reader.counts()["requests"] == 2
        last = journal.last(one.key)
        assert last is not None and last.attempt == 0
        await journal.close()

    run(test())


def test_attempts_that_end_together_share_a_commit(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")
        commits = []
        commit = journal._commit
        journal._commit = lambda rows: (commits.append(len(rows)), commit(rows))  # type: ignore
        await asyncio.gather(*(journal.append(attempt(number)) for number in range(200)))
        assert sum(commits) == 200
        assert len(commits) <= 3
        with JournalReader(tmp_path / "journal.sqlite") as reader:
            assert len(reader.standing([attempt(number).key for number in range(700)])) == 200
        await journal.close()

    run(test())


def test_a_write_that_fails_is_told_to_everybody_who_waits(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")

        def full(rows: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        journal._commit = full  # type: ignore[method-assign, assignment]
        results = await asyncio.gather(
            *(journal.append(attempt(number)) for number in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [sqlite3.OperationalError] * 3

    run(test())


def test_text_that_cannot_be_stored_is_told_too_and_those_after_it_are_kept(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")
        hostile, innocent, later = attempt(1), attempt(2), attempt(3)
        hostile.content_type = "image/png\udcff"
        results = await asyncio.wait_for(
            asyncio.gather(
                *(journal.append(entry) for entry in (innocent, hostile)), return_exceptions=True
            ),
            5,
        )
        assert [type(result) for result in results] == [UnicodeEncodeError] * 2
        await asyncio.wait_for(journal.append(later), 5)
        with JournalReader(tmp_path / "journal.sqlite") as reader:
            assert list(reader.all_attempts()) == [later]
        await journal.close()

    run(test())


def test_who_leaves_before_the_commit_holds_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        journal = Journal(tmp_path / "journal.sqlite")
        leaving = asyncio.create_task(journal.append(attempt(1)))
        staying = asyncio.create_task(journal.append(attempt(2)))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(staying, 5)
        assert journal.last(attempt(1).key) == attempt(1)
        await journal.close()

    run(test())


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from infra.gateway.journal import Journal
    from infra.gateway.outcomes import Attempt
    async def main():
        journal = Journal(Path(sys.argv[1]))
        async def one(number):
            await journal.append(Attempt(f"{number:032x}", "http://shapes.test/", 1))
            print(number, flush=True)
        for start in range(0, 100_000, 20):
            await asyncio.gather(*(one(start + n) for n in range(20)))
    asyncio.run(main())
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_reported_before_a_kill_is_there_after_it(tmp_path: Path, seed: int) -> None:
    path, root = tmp_path / "journal.sqlite", str(Path(__file__).parents[3])
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(random.Random(seed).randrange(50, 400))]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
    reported = [f"{int(line):032x}" for line in lines]
    with JournalReader(path) as reader:
        assert set(reader.standing(reported)) == set(reported)

    async def goes_on() -> None:
        journal = Journal(path)
        await journal.append(attempt(1))
        assert journal.last(attempt(1).key) == attempt(1)
        await journal.close()

    run(goes_on())


def test_a_final_outcome_is_never_asked_for_again(tmp_path: Path) -> None:
    """Over three lives of the gateway, each URL is requested as often as it may be."""
    outcomes = {"a": image(), "b": answer(404), "c": answer(500), "d": answer(200, "text")}

    async def life(asked: dict[str, int]) -> list[tuple[Outcome, bool]]:
        found = []
        async with bench(tmp_path, attempts=2) as b:
            b.web.routes |= {f"/{name}": handler for name, handler in outcomes.items()}
            for name in outcomes:
                reply = await b.get(f"http://shapes.test/{name}")
                found.append((reply.attempt.outcome, reply.body == picture()))
                asked[name] = asked.get(name, 0) + b.web.asked(f"/{name}")
        return found

    async def test() -> None:
        asked: dict[str, int] = {}
        lives = [await life(asked) for _ in range(3)]
        assert lives[0] == lives[1] == lives[2]
        assert lives[0][0] == (Outcome.OK, True)
        assert asked == {"a": 1, "b": 1, "c": 2, "d": 1}

    run(test())


def test_a_torn_body_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = image()
            await b.get(URL)
            (stored,) = [p for p in b.config.spool.rglob("*") if p.is_file()]
            stored.write_bytes(picture()[:20])
            again = await b.get(URL)
            assert again.body == picture()
            assert not again.from_journal

    run(test())


def test_a_server_that_answers_differently_the_second_time_is_told_apart(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.web.routes["/a.png"] = image()
            first = (await b.get(URL)).attempt
            Spool(b.config.spool).remove([url_key(URL)])
            b.web.routes["/a.png"] = image(picture("blue"))
            second = await b.get(URL)
            assert second.body == picture("blue")
            assert f"it was {first.sha256} before" in second.attempt.error

    run(test())


def test_two_who_ask_at_once_cost_one_request_and_one_who_leaves_costs_nothing(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:

            async def slow(request):  # type: ignore[no-untyped-def]
                await asyncio.sleep(0.2)
                return await image()(request)

            b.web.routes["/a.png"] = slow
            impatient = asyncio.create_task(b.get(URL))
            others = [asyncio.create_task(b.get(URL)) for _ in range(3)]
            await asyncio.sleep(0.1)
            impatient.cancel()
            assert all(reply.body == picture() for reply in await asyncio.gather(*others))
            assert b.web.asked("/a.png") == 1

    run(test())


# The table of URLs


def test_bytes_are_kept_until_the_last_chunk_that_wants_them_is_finished(tmp_path: Path) -> None:
    with UrlTable(tmp_path / "urls.sqlite", write=True) as table:
        table.want("one", [("a", "http://a/"), ("b", "http://b/")])
        table.want("two", [("b", "http://b/"), ("c", "http://c/")])
        table.want("two", [("b", "http://b/")])  # again, after a restart
        assert table.release("one") == ["a"]
        assert table.release("one") == []
        assert sorted(table.release("two")) == ["b", "c"]
        assert table.url("a") == "http://a/"


def test_the_gateway_sees_urls_that_are_added_while_it_runs(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            assert await b.gateway.answer(url_key(URL)) is None
            assert await b.gateway.answer("../../etc/passwd") is None
            b.web.routes["/a.png"] = image()
            assert (await b.get(URL)).attempt.ok

    run(test())
