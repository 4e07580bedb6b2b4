"""A report compares generators that were trained on the same codes, and tells of people's votes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import voting
from infra.report.content import Table
from tests.flows.judged import JUDGE, Judged

RIGHT = [True, False, False]
MASKGIT = {"pipeline": "masked", "network": "maskgit", "sampling": {"steps": 5}}


@pytest.fixture
def home(tmp_path: Path) -> Judged:
    home = Judged(tmp_path)
    home.train("one", RIGHT)
    return home


def generators(home: Judged) -> Table | None:
    tables = home.content().tables
    return next((one for one in tables if one.title == "Generators on the same data"), None)


def test_generators_on_the_same_codes_stand_side_by_side(home: Judged) -> None:
    assert generators(home) is None
    home.train("two", [True, True, False], **MASKGIT)
    home.train("three", RIGHT, pipeline="elsewhere", codes="other codes")
    table = generators(home)
    assert table is not None
    assert table.columns == ("", "shapes (dalle)", "masked (maskgit)")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["passes a picture"] == ("12", "5")  # a grid of 3 x 4 codes, one a pass
    assert rows["pictures a second"] == ("2.4", "2.4")  # 6 in the 2.5 s of made manifests
    assert rows["updates of training"] == ("1,200", "1,200")
    assert rows["seen/right"] == ("0.3333", "0.6667")
    assert "fid/ranker/blur_0" in rows
    assert "fid/ranker/blur_8" not in rows
    assert "do not compare" not in table.note


def test_what_cannot_be_compared_or_read_is_said(home: Judged) -> None:
    home.train("two", RIGHT, **MASKGIT, judge={**JUDGE, "digest": "d" * 64})
    table = generators(home)
    assert table is not None
    assert "scores do not compare" in table.note

    made = home.train("seven", RIGHT, **{**MASKGIT, "pipeline": "broken"})
    home.train("eleven", RIGHT, **{**MASKGIT, "pipeline": "renamed", "network": "gone"})
    home.store.discard(made["samples"].outputs["output"].units[0].sha256)
    table = generators(home)
    assert table is not None
    assert "broken is left out" in table.note
    assert "renamed (gone)" in table.columns
    passes = next(row for row in table.rows if row[0] == "passes a picture")
    assert passes[table.columns.index("renamed (gone)")] == ""


def test_votes_on_its_pictures_are_in_the_report(home: Judged) -> None:
    home.train("two", RIGHT, **MASKGIT)
    home.train("three", RIGHT, pipeline="elsewhere")
    titles = [one.title for one in home.content().tables]
    assert "What people say" not in titles
    for sides in (("shapes", "elsewhere"), ("masked", "elsewhere")):
        election = voting.prepare(home.store, home.environment, *sides)
        election.votes.remember(election.ballot)
        for pair in election.ballot.pairs[:2]:
            for person in "abcde":
                chosen = {"realistic": pair.key.first, "matching": pair.key.second}
                election.votes.cast(person, pair.key, chosen, pair.key.first)
    table = next(one for one in home.content().tables if one.title == "What people say")
    assert [row[:2] for row in table.rows] == [("shapes", "elsewhere")] * 2  # and not masked's
    realistic, matching = table.rows
    assert realistic[3:] == ("2 of 2", "100.0%", "34.2% to 100.0%", "1")
    assert matching[3:] == ("0 of 2", "0.0%", "0.0% to 65.8%", "1")


def test_a_damaged_file_of_votes_costs_nobody_the_report(home: Judged) -> None:
    (home.environment.home / voting.FILE).write_text("this is no database, but text" * 100)
    table = next(one for one in home.content().tables if one.title == "What people say")
    assert "cannot be read" in table.note
