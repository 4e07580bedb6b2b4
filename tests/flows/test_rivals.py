"""A report shows a model beside the champion that is another one, and says what is not alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.report.page import render
from tests.flows.judged import JUDGE, Judged


@pytest.fixture
def home(tmp_path: Path) -> Judged:
    return Judged(tmp_path)


def test_a_first_model_has_no_rival(home: Judged) -> None:
    made = home.train("one", [True, False, False])
    assert home.content().contests == ()  # not registered yet
    home.register(made, 0.5)
    assert home.content().contests == ()
    assert "beside the champion" not in render(home.content())


def test_a_worse_model_stands_beside_the_champion(home: Judged) -> None:
    home.register(home.train("one", [True, True, False]), 0.6)
    assert "no better" in home.register(home.train("other", [True, False, False]), 0.3)
    (contest,) = home.content().contests
    assert "The same 3 prompts and the same seeds." in contest.note
    assert "Not compared" not in contest.note
    assert contest.table is not None
    rows = {row[:2]: row[2:] for row in contest.table.rows}
    assert rows["seen", "right, best-ranked"][:4] == ("2", "0.500", "1.000", "-0.500")
    assert rows["held out", "right, best-ranked"][:4] == ("1", "0.000", "0.000", "+0.000")
    assert rows["seen", "ranker's score, best-ranked"][3] == "+0.000"
    dog = next(one for one in contest.prompts if one.prompt == "a dog")
    assert [one.right for one in (*dog.first, *dog.second)] == [False, False, True, False]
    assert [one.score for one in dog.first] == ["0.500", "0.250"]
    assert dog.first[0].png != dog.second[0].png
    page = render(home.content())
    assert "<i>a house" not in page
    assert "&lt;i&gt;a house&lt;/i&gt;" in page


def test_a_new_champion_stands_beside_the_one_before_it(home: Judged) -> None:
    for name, value in (("a", 0.1), ("bb", 0.2), ("ccc", 0.3)):
        made = home.train(name, [True, False, False])
        home.register(made, value)
    (contest,) = home.content().contests
    assert contest.prompts[0].first[0].png != contest.prompts[0].second[0].png
    second = home.train("bb", [True, False, False])
    home.register(second, 0.2)  # the champion is `ccc` again
    (again,) = home.content().contests
    assert again.prompts[0].second[0].png == contest.prompts[0].first[0].png


def test_the_same_model_judged_anew_is_no_rival_of_itself(home: Judged) -> None:
    home.register(home.train("one", [True, False, False]), 0.1)
    home.register(home.train("one", [True, True, False]), 0.2)
    assert home.content().contests == ()


def test_other_seeds_and_judges_are_said(home: Judged) -> None:
    home.register(home.train("one", [True, True, True]), 0.6)
    other = {**JUDGE, "digest": "d" * 64}
    home.register(home.train("other", [True, False, False], seed=100, judge=other), 0.3)
    (contest,) = home.content().contests
    assert "3 of 3 prompts are the rival's as well, 0 of them drawn with the same seeds" in (
        contest.note
    )
    assert "no judge has looked at both" in contest.note
    assert contest.table is not None
    assert {row[1] for row in contest.table.rows} == {"ranker's score, best-ranked"}


def test_a_rival_whose_files_are_lost_is_named_and_the_report_written(home: Judged) -> None:
    first = home.train("one", [True, True, True])
    home.register(first, 0.6)
    home.register(home.train("other", [True, False, False]), 0.3)
    (drawn,) = first["ranked"].outputs["output"].units
    home.store.discard(drawn.sha256)
    (contest,) = home.content().contests
    assert "cannot be shown" in contest.note
    assert "is damaged: missing" in contest.note
    assert (contest.table, contest.prompts) == (None, ())
