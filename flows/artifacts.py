"""What Prefect's page of a run shows of its data: the funnel as a table, and the report in words.

Only numbers, stages, reasons and names of sources and hosts: captions come from the web, and a page
that renders markdown is no place for them. The whole report is an HTML file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from infra.report.content import Content, Table


def publish_artifacts(content: Content) -> None:
    """Add a table and a text to the present flow run; nothing for a pipeline without data."""
    if not content.funnel:
        return
    name = content.pipeline.replace("_", "-")  # Prefect's keys have dashes
    create_table_artifact(
        key=f"{name}-funnel", table=funnel_rows(content), description="What each stage kept."
    )
    create_markdown_artifact(
        key=f"{name}-data", markdown=as_markdown(content), description="The data of this run."
    )


def funnel_rows(content: Content) -> list[dict[str, str | int]]:
    """A row for each stage and, below it, one for each reason for which it dropped pairs."""
    rows: list[dict[str, str | int]] = []
    for row in content.funnel:
        rows.append({"stage": row.stage, "reason": "", "kept": row.kept, "dropped": row.dropped})
        rows += [
            {"stage": row.stage, "reason": group.reason, "kept": "", "dropped": group.count}
            for group in row.drops
        ]
    return rows


def as_markdown(content: Content) -> str:
    """Funnel, sources, domains and changes."""
    columns = ("stage", "kept", "dropped", "most for")
    rows = tuple(
        (row.stage, f"{row.kept:,}", f"{row.dropped:,}",
         ", ".join(f"{group.reason} {group.count:,}" for group in row.drops[:3]))
        for row in content.funnel
    )  # fmt: skip
    tables = (Table("Funnel", columns, rows), *content.data)
    parts = [f"# {_plain(content.pipeline)}"]
    parts += [line for table in tables for line in _table(table, "##")]
    if content.changes:
        parts.append("## What has changed")
        parts += [line for table in content.changes for line in _table(table, "###")]
    return "\n".join(parts) + "\n"


def _table(table: Table, level: str) -> Iterator[str]:
    yield f"{level} {_plain(table.title)}"
    yield ""
    if table.note:
        yield f"{_plain(table.note)}\n"
    if table.rows:
        for cells in (table.columns, ("---",) * len(table.columns), *table.rows):
            yield f"| {' | '.join(_plain(cell) for cell in cells)} |"
    yield ""


def _plain(text: str) -> str:
    """Text in which nothing is markup or a link."""
    if text == "---":
        return text
    escaped = re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
