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
    picture: bytes | None = None  # JPEG


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
class Bars:
    """A distribution: for each class how many there were before and after.

    Attributes:
        names: what the two series are; an empty name for one that is not shown.
    """

    title: str
    names: tuple[str, str]
    rows: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Picture:
    """A small picture, PNG, with a score, and whether it is right where somebody has judged."""

    png: bytes
    score: str
    right: bool | None = None


@dataclass(frozen=True)
class Versus:
    """The best pictures of two models for one prompt."""

    prompt: str
    group: str
    first: tuple[Picture, ...]
    second: tuple[Picture, ...]


@dataclass(frozen=True)
class Contest:
    """A model beside its rival: what differs, and pictures of both for the same prompts."""

    model: str
    note: str
    table: Table | None = None
    prompts: tuple[Versus, ...] = ()


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
    contests: tuple[Contest, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    funnel: tuple[FunnelRow, ...] = ()
    data: tuple[Table, ...] = ()
    bars: tuple[Bars, ...] = ()
    changes: tuple[Table, ...] = ()
    counts: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    stages: tuple[StageRow, ...] = ()
    graph: tuple[Node, ...] = ()
    notes: tuple[str, ...] = field(default=())
