"""People vote in a real browser, by mouse and by keys; nothing foreign runs or is loaded."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from infra.voting.ballot import Ballot, Pair, Side
from infra.voting.server import Booth, VotingServer
from infra.voting.votes import Votes
from tests.browser import Browser

HOSTILE = '<img src=x onerror="document.title=1"></h1><script>document.title=2</script> a "red" cat'
_CHECKED = "[...document.querySelectorAll(':checked')].map(e => e.name + e.dataset.key).join(' ')"


def png(colour: tuple[int, int, int]) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(target, "PNG")
    return target.getvalue()


@pytest.fixture
def booth(tmp_path: Path) -> Booth:
    pairs = [
        Pair(caption, png((number, 0, 0)), png((0, number, 0)))
        for number, caption in enumerate((HOSTILE, "a dog", "a house"), start=1)
    ]
    ballot = Ballot(Side("one", "1" * 64), Side("two", "2" * 64), tuple(pairs), seed=3)
    return Booth(ballot, Votes(tmp_path / "votes.sqlite"))


@pytest.fixture
def server(booth: Booth) -> Iterator[VotingServer]:
    with VotingServer(booth) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def enter(browser: Browser, server: VotingServer, name: str) -> None:
    browser.open(server.address)
    browser.js(f"document.querySelector('#person').value = '{name}'")
    browser.wait_for_load(lambda: browser.click("button"))


def caption(browser: Browser) -> str:
    return str(browser.js("document.querySelector('h1').innerText"))


def shown(browser: Browser) -> list[str]:
    found = browser.js("[...document.images].map(e => e.src.split('/').pop()).join(' ')")
    return [name.removesuffix(".png") for name in found.split()]


def test_two_people_vote_by_mouse_and_by_keys(
    booth: Booth, server: VotingServer, tmp_path: Path
) -> None:
    with Browser(tmp_path / "profile") as browser:
        enter(browser, server, "Anna")
        order = [pair.caption for pair in booth.ballot.order("anna")]
        assert caption(browser) == order[0]
        assert browser.js("[...document.images].every(e => e.naturalWidth === 8)")
        left, right = shown(browser)
        browser.click('[name="realistic"][data-key="1"]')
        browser.click("button")
        assert caption(browser) == order[0]  # one question is open, so nothing is sent
        browser.click('[name="matching"][data-key="2"]')
        browser.wait_for_load(lambda: browser.click("button"))

        first = booth.ballot.order("anna")[0].key
        (vote,) = booth.votes.on([first.id])[first.id]
        assert (vote.person, vote.chosen) == ("anna", {"realistic": left, "matching": right})

        assert caption(browser) == order[1]
        browser.press("2")
        browser.press("2")
        assert browser.js(_CHECKED) == "realistic2 matching2"
        browser.press("0")
        assert browser.js(_CHECKED) == ""
        browser.press("Enter")
        assert caption(browser) == order[1]
        browser.press("1")
        browser.press("2")
        assert browser.js(_CHECKED) == "realistic1 matching2"
        browser.wait_for_load(lambda: browser.press("Enter"))
        assert caption(browser) == order[2]

        enter(browser, server, "Bert")  # somebody else sees all, in an order of his own
        assert caption(browser) == booth.ballot.order("bert")[0].caption
        enter(browser, server, "  ANNA ")  # and she goes on where she was
        assert caption(browser) == order[2]
        for key in "11":
            browser.press(key)
        browser.wait_for_load(lambda: browser.press("Enter"))
        assert caption(browser) == "Thank you"
        assert all(len(one) == 1 for one in booth.votes.on(booth.ballot.by_id).values())

        assert browser.js("document.title") not in ("1", "2")
        assert browser.complaints() == []
        assert all(url.startswith(server.address) for url in browser.requested())


def test_going_back_changes_the_vote_and_adds_none(
    booth: Booth, server: VotingServer, tmp_path: Path
) -> None:
    with Browser(tmp_path / "profile") as browser:
        enter(browser, server, "anna")
        seen = shown(browser)
        for key in "12":
            browser.press(key)
        browser.wait_for_load(lambda: browser.press("Enter"))
        browser.wait_for_load(lambda: browser.js("history.back()"))
        assert shown(browser) == seen
        assert browser.js(_CHECKED) == "realistic1 matching2"
        browser.press("0")
        for key in "21":
            browser.press(key)
        browser.wait_for_load(lambda: browser.press("Enter"))
        first = booth.ballot.order("anna")[0].key
        (vote,) = booth.votes.on([first.id])[first.id]
        assert vote.chosen == {"realistic": seen[1], "matching": seen[0]}


def test_the_page_can_be_read_large_and_without_a_mouse(
    server: VotingServer, tmp_path: Path
) -> None:
    with Browser(tmp_path / "profile", (320, 640)) as browser:  # as wide as 1280 at 400 %
        enter(browser, server, "anna")
        assert browser.js("document.documentElement.scrollWidth <= innerWidth")
        assert browser.js("parseFloat(getComputedStyle(document.body).fontSize)") >= 20
        assert browser.js("[...document.images].every(e => e.alt && e.width > 250)")
        assert browser.js("document.activeElement.tagName") == "H1"
        named = "[...document.querySelectorAll('input')].every(e => e.labels[0].innerText)"
        assert browser.js(named)
        browser.press("Tab")
        assert browser.js("document.activeElement.name") == "realistic"


def test_it_works_without_scripts(booth: Booth, server: VotingServer, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
        enter(browser, server, "anna")
        browser.press("1")
        assert browser.js(_CHECKED) == ""
        seen = shown(browser)
        for question in ("realistic", "matching"):
            browser.click(f'[name="{question}"][data-key="2"]')
        browser.wait_for_load(lambda: browser.click("button"))
        first = booth.ballot.order("anna")[0].key
        (vote,) = booth.votes.on([first.id])[first.id]
        assert vote.chosen == {"realistic": seen[1], "matching": seen[1]}
