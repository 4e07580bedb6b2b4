"""The file of votes, SQLite: one vote a person and pair, on disk before the person is thanked.

    votes     a row for each person and pair: which picture, by sha256, was chosen in each question
    ballots   what was ever asked, so that a report can count without the pictures

A vote given again replaces the former and keeps its place: of more than five votes on a pair, the
first five people's count.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.voting.ballot import QUESTIONS, Ballot, PairKey, Side

_SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    pair TEXT NOT NULL, person TEXT NOT NULL, realistic TEXT NOT NULL, matching TEXT NOT NULL,
    shown_first TEXT NOT NULL, at REAL NOT NULL, UNIQUE (pair, person)
) STRICT;
CREATE TABLE IF NOT EXISTS ballots (
    first TEXT NOT NULL, first_digest TEXT NOT NULL, second TEXT NOT NULL,
    second_digest TEXT NOT NULL, pairs TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (first_digest, second_digest)
) STRICT;
"""
_VOTE = """
INSERT INTO votes (pair, person, realistic, matching, shown_first, at)
VALUES (:pair, :person, :realistic, :matching, :shown_first, :at)
ON CONFLICT (pair, person) DO UPDATE SET
    realistic = excluded.realistic, matching = excluded.matching,
    shown_first = excluded.shown_first, at = excluded.at
"""
_ASKED = """
INSERT INTO ballots VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (first_digest, second_digest) DO UPDATE SET
    first = excluded.first, second = excluded.second, pairs = excluded.pairs, at = excluded.at
"""


@dataclass(frozen=True)
class Vote:
    """What one person chose in a pair: the sha256 of a picture for each question."""

    person: str
    chosen: Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """A ballot as it is remembered."""

    first: Side
    second: Side
    pairs: tuple[PairKey, ...]


class Votes:
    """The votes in one file. Each call has a connection of its own, so any thread may call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    def remember(self, ballot: Ballot) -> None:
        """Note what is asked."""
        pairs = json.dumps([asdict(pair.key) for pair in ballot.pairs])
        first, second = ballot.first, ballot.second
        row = (first.name, first.digest, second.name, second.digest, pairs, time.time())
        with self._open() as connection:
            connection.execute(_ASKED, row)

    def cast(self, person: str, pair: PairKey, chosen: Mapping[str, str], shown_first: str) -> None:
        """Keep a vote, instead of the one that this person gave on this pair before.

        Raises:
            ValueError: if a question is not answered with one of the pair's two pictures.
        """
        for question in QUESTIONS:
            if chosen.get(question) not in (pair.first, pair.second):
                raise ValueError(f"{question}: choose one of the two pictures")
        row = {
            "pair": pair.id, "person": person, "shown_first": shown_first, "at": time.time(),
            **{question: chosen[question] for question in QUESTIONS},
        }  # fmt: skip
        with self._open() as connection:
            connection.execute(_VOTE, row)

    def on(self, pairs: Iterable[str]) -> dict[str, list[Vote]]:
        """All votes on pairs, by pair, in the order in which people first voted."""
        found: dict[str, list[Vote]] = {pair: [] for pair in pairs}
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM votes ORDER BY number").fetchall()
        for row in rows:
            if row["pair"] in found:
                chosen = {question: row[question] for question in QUESTIONS}
                found[row["pair"]].append(Vote(row["person"], chosen))
        return found

    def ballots(self) -> Sequence[Asked]:
        """Everything that was ever asked, in that order."""
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM ballots ORDER BY at").fetchall()
        return [
            Asked(
                Side(row["first"], row["first_digest"]), Side(row["second"], row["second_digest"]),
                tuple(PairKey(**pair) for pair in json.loads(row["pairs"])),
            )
            for row in rows
        ]  # fmt: skip

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA synchronous = FULL")  # a vote must outlive the power
            with connection:
                yield connection
        finally:
            connection.close()
