"""What a report says, as plain values; `infra.report.page` turns it into a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """A dropped pair: its caption, where it was, and its picture if it can be shown."""

    caption: str
    detail: str
    url: str
    picture: bytes | None = None  # PNG


@dataclass(frozen=True)
class DropGroup:
    """All pairs that one stage dropped for one reason, with a few of them."""

    reason: str
    count: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class FunnelRow:
    """What one stage let through."""

    stage: str
    kept: int
    dropped: int
    drops: tuple[DropGroup, ...] = ()


@dataclass(frozen=True)
class StageRow:
    """How a stage came about."""

    name: str
    task: str
    seconds: float
    outputs: str
    made: int
    reused: int
    fingerprint: str
    provenance: str
    accepted: str = ""


@dataclass(frozen=True)
class Sheet:
    """A picture with a title, PNG."""

    title: str
    picture: bytes


@dataclass(frozen=True)
class Curve:
    """A metric over time."""

    stage: str
    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Table:
    """A table of texts, for whatever a stage has measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Node:
    """A stage in the graph of lineage, with the stages it takes from."""

    name: str
    inputs: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Content:
    """Everything that stands in a report."""

    pipeline: str
    machine: dict[str, Any]
    tables: tuple[Table, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    funnel: tuple[FunnelRow, ...] = ()
    counts: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    stages: tuple[StageRow, ...] = ()
    graph: tuple[Node, ...] = ()
    notes: tuple[str, ...] = field(default=())
