"""Which pairs of a table say the same as others, and which of each group stays.

Pairs of an earlier collection stay; else the one with the longest caption and, of those, with the
smallest key. So the choice depends neither on the order of the pairs nor on how they were split,
unless the caller says that they come in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.tables import read_columns
from infra.work import Work
from schemas.artifact import Unit
from schemas.records import PAIR_SCHEMA, DropReason
from tasks.dedup.rewriting import plan

EARLIER, SURVIVOR = "earlier", "survivor"
ROW = np.dtype([("group", "<u8"), ("key", "S16"), ("length", "<i4"), ("earlier", "?")])


@dataclass(frozen=True)
class Tied:
    """Pairs (rows of `ROW`) that are tied to others, group by group, and each one's survivor."""

    rows: np.ndarray
    survivors: np.ndarray
    apart: np.ndarray  # float64 [N], of each from its survivor

    def table(self, reason: DropReason) -> Iterator[dict[str, Any]]:
        """Rows of `CLUSTER_SCHEMA`."""
        for row, survivor, apart in zip(self.rows, self.survivors, self.apart, strict=True):
            first = row["key"] == survivor["key"] and not survivor["earlier"]
            stays = bool(row["earlier"] or first)
            kept = EARLIER if row["earlier"] else SURVIVOR
            yield {
                "cluster": key_text(survivor), "key": key_text(row), "survivor": stays,
                "rule": kept if stays else str(reason), "sha256": "", "area": 0,
                "distance": -1, "difference": float(apart),
            }  # fmt: skip

    def dropped(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that go, and their survivors."""
        earlier = self.survivors["earlier"]
        goes = ~self.rows["earlier"] & (earlier | (self.rows["key"] != self.survivors["key"]))
        return self.rows[goes], self.survivors[goes]


def tie(rows: np.ndarray, groups: np.ndarray, ordered: bool = False) -> Tied:
    """Tie rows of one group number; those without another, or all of them earlier, are left out.

    Args:
        ordered: of the rows of a group that are not earlier, the first one stays.
    """
    best = () if ordered else longest(rows)
    order = np.lexsort((*best, ~rows["earlier"], groups))  # stable
    rows, numbers = rows[order], groups[order]
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[: len(order)])
    sizes = np.diff(starts, append=len(order))
    fresh = np.add.reduceat(~rows["earlier"], starts) if len(starts) else sizes
    tied = np.repeat((sizes > 1) & (fresh > 0), sizes)
    survivors = np.repeat(rows[starts], sizes)
    return Tied(rows[tied], survivors[tied], np.zeros(int(tied.sum())))


def longest(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys for `np.lexsort`: the longest caption is first, and of those the smallest key."""
    return rows["key"], -rows["length"]


def key_text(row: Any) -> str:
    """The key of a row; numpy drops zeros at the end."""
    return bytes(row["key"]).ljust(16, b"\0").hex()


def plans(
    parts: Sequence[Unit], rows: np.ndarray, survivors: np.ndarray, reason: DropReason,
    words: str, work: Work,
) -> list[Unit | None]:  # fmt: skip
    """For each part of the table that loses pairs a unit that says which and why."""
    order = np.argsort(rows["key"], kind="stable")
    dropped, of = rows["key"][order], survivors[order]
    found = []
    for part in parts:
        text = read_columns(work.fetch(part), PAIR_SCHEMA, ["key"])["key"].to_pylist()
        keys = np.frombuffer(bytes.fromhex("".join(text)), dtype="S16")
        here = np.flatnonzero(np.isin(keys, dropped))
        lost = {}
        for place, number in zip(here, np.searchsorted(dropped, keys[here]), strict=True):
            survivor = key_text(of[number])
            if of[number]["earlier"]:
                survivor += " of an earlier collection"
            lost[text[place]] = [str(reason), f"{words} {survivor}"]
        found.append(plan(part, lost, work))
    return found
