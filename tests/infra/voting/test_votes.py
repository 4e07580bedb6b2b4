"""One vote a person and pair; the first five of a pair decide; the interval is Wilson's."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.voting.ballot import Ballot, Pair, PairKey, Side
from infra.voting.result import count, wilson
from infra.voting.votes import Vote, Votes

PAIR = Pair("a cat", b"first", b"second").key
FIRST = {"realistic": PAIR.first, "matching": PAIR.first}
SECOND = {"realistic": PAIR.second, "matching": PAIR.second}


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    return Votes(tmp_path / "votes.sqlite")


def test_a_second_vote_replaces_the_first_and_keeps_its_place(votes: Votes) -> None:
    for person in ("anna", "bert"):
        votes.cast(person, PAIR, FIRST, PAIR.first)
    votes.cast("anna", PAIR, SECOND, PAIR.second)
    found = Votes(votes.path).on([PAIR.id])[PAIR.id]
    assert found == [Vote("anna", SECOND), Vote("bert", FIRST)]


def test_people_who_vote_at_once_all_count_once(votes: Votes) -> None:
    people = [f"person {number % 8}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda person: votes.cast(person, PAIR, FIRST, PAIR.first), people))
    found = [vote.person for vote in votes.on([PAIR.id])[PAIR.id]]
    assert sorted(found) == sorted(set(people))


def test_a_vote_outlives_a_process_that_is_killed(votes: Votes) -> None:
    script = (
        "import os, sys; from pathlib import Path;"
        "from infra.voting.votes import Votes; from infra.voting.ballot import PairKey;"
        "Votes(Path(sys.argv[1])).cast('anna', PairKey('p', 'x', 'y'),"
        " {'realistic': 'x', 'matching': 'y'}, 'x'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(votes.path)], check=False)
    assert done.returncode == -9
    assert votes.on(["p"])["p"] == [Vote("anna", {"realistic": "x", "matching": "y"})]


@pytest.mark.parametrize("chosen", [{}, {"realistic": PAIR.first}, {**FIRST, "matching": "z"}])
def test_half_an_answer_and_other_pictures_are_refused(
    votes: Votes, chosen: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="choose one of the two"):
        votes.cast("anna", PAIR, chosen, PAIR.first)
    assert votes.on([PAIR.id]) == {PAIR.id: []}


def test_exchanging_the_sides_is_the_same_pair(votes: Votes) -> None:
    other = Pair("a cat", b"second", b"first").key
    assert (other.id, other.first) == (PAIR.id, PAIR.second)
    for number in range(5):
        votes.cast(str(number), PAIR, FIRST, PAIR.first)
    for pair, first in ((PAIR, 1), (other, 0)):
        found = count([pair], votes.on([pair.id]))
        assert [one.first for one in found] == [first, first]


def test_order_and_sides_are_each_persons_own_and_the_same_again() -> None:
    pairs = tuple(Pair(f"caption {n}", b"a%d" % n, b"b%d" % n) for n in range(200))
    ballot = Ballot(Side("one", ""), Side("two", ""), pairs, seed=1)
    again = Ballot(Side("one", ""), Side("two", ""), pairs[::-1], seed=1)
    orders = {who: [pair.caption for pair in ballot.order(who)] for who in ("anna", "bert")}
    assert orders["anna"] == [pair.caption for pair in again.order("anna")]
    assert orders["anna"] != orders["bert"]
    on_the_left = sum(ballot.shown("anna", pair)[0] == pair.key.first for pair in pairs)
    assert 70 < on_the_left < 130  # 200 coins: 4 deviations
    assert [ballot.shown("anna", p) for p in pairs] == [again.shown("anna", p) for p in pairs]
    assert [ballot.shown("anna", p) for p in pairs] != [ballot.shown("bert", p) for p in pairs]


def test_the_majority_of_the_first_five_decides_a_caption() -> None:
    pairs = [PairKey(str(number), "x", "y") for number in range(4)]
    answers = {"0": "xxxyy", "1": "yyyyyxxxxx", "2": "xxxx", "3": "xxxxx"}
    votes = {
        pair: [Vote(str(n), {"realistic": one, "matching": "x"}) for n, one in enumerate(given)]
        for pair, given in answers.items()
    }
    realistic, matching = count(pairs, votes)
    assert (realistic.first, realistic.second, realistic.undecided) == (2, 1, 1)
    assert realistic.by_votes == (1, 0, 0, 1, 0, 1)
    assert (realistic.votes_first, realistic.votes) == (3 + 0 + 4 + 5, 19)
    assert (matching.first, matching.second) == (3, 0)
    assert realistic.share == pytest.approx(2 / 3)
    nothing = count(pairs[:1], {})[0]
    assert (nothing.share, nothing.low, nothing.undecided) == (None, None, 1)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 3), (90, 100), (933, 1000), (7, 7)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    z, share = 1.959963984540054, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = share * (1 - share) / trials + z**2 / (4 * trials**2)
    half = z * math.sqrt(spread) / (1 + z**2 / trials)
    assert wilson(successes, trials) == pytest.approx((middle - half, middle + half), abs=1e-9)
