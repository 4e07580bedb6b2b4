"""Rows of what filters measured and would do (`schemas.records.FINDING_SCHEMA`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.filters import Change, Objection


def finding_rows(
    key: str, name: str, measured: Mapping[str, float], verdict: Objection | Change | None
) -> Iterator[dict[str, Any]]:
    """A row for each measure of a filter on one pair; one without a value if it measures nothing.

    The verdict stands in the first of them, so that counting reasons counts pairs.
    """
    said: dict[str, Any] = {}
    if verdict is not None:
        said = {"detail": verdict.detail, "reason": getattr(verdict, "reason", None)}
    for measure, value in measured.items() or ((None, None),):
        yield {"key": key, "filter": name, "measure": measure, "value": value, **said}
        said = {}
