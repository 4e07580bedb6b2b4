"""Months of a declaration: an entry with `{month}` stands once for each month so far.

A declaration that begins with `first_month: 2026-09` and reads `crawl/{month}/*.warc.gz` reads, in
November, the files of September, October and November. Months add up: units are known by content,
so that those of earlier months are found made, and what came late in a month is still taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from schemas.pipeline import KeyPath, Located, Month, Pipeline

_PLACE = "{month}"
_PATTERN = "%Y-%m"


def scheduled_start() -> datetime:
    """When the present run of a flow was to start, however late it did; else now."""
    from prefect.runtime import flow_run  # takes longer to import than a plan takes

    found = flow_run.scheduled_start_time
    return datetime.fromtimestamp(found.timestamp(), UTC)


def months_of(
    declared: Pipeline, month: Month | None, now: datetime | None, located: Located
) -> tuple[Month, ...]:
    """The months from the declared first one to the given one, or to that of `now`; none if none
    is declared.

    Raises:
        DeclarationError: for a month that is none, lies before the first, or has no first.
    """
    first = declared.first_month
    if first is None:
        if month is not None:
            raise located.error((), f"month {month!r} is given, but no `first_month` is declared")
        return ()
    last = month or (now or datetime.now(UTC)).strftime(_PATTERN)
    try:
        start, end = (_number(one) for one in (first, last))
    except ValueError as error:
        raise located.error(("first_month",), f"{last!r} is no month such as '2026-09'") from error
    if end < start:
        raise located.error(("first_month",), f"the month {last} lies before the first, {first}")
    return tuple(f"{one // 12:04d}-{one % 12 + 1:02d}" for one in range(start, end + 1))


def _number(month: Month) -> int:
    found = datetime.strptime(month, _PATTERN)
    return found.year * 12 + found.month - 1


def spread(values: Any, months: Sequence[Month], located: Located, path: KeyPath) -> Any:
    """Parameters in which each entry of a list that says `{month}` stands once for each month.

    Entries that follow one another are gone through month by month.

    Raises:
        DeclarationError: for one that stands in no list, or where no first month is declared.
    """
    found = _spread(values, months)
    if not _says(values):
        return values
    if not months:
        raise located.error(path, f"{_PLACE} needs `first_month` at the top, such as 2026-09")
    if _says(found):
        raise located.error(path, f"{_PLACE} stands for several months: put it into a list")
    return found


def _spread(value: Any, months: Sequence[Month]) -> Any:
    if isinstance(value, dict):
        return {key: _spread(item, months) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    entries: list[Any] = []
    inner = [_spread(item, months) for item in value]  # the innermost list is the one that grows
    for says, some in groupby(inner, _says):
        # Neighbours month by month, so that what a month adds stands behind all of those before.
        together = list(some)
        entries += (
            [_filled(one, month) for month in months for one in together] if says else together
        )
    return entries


def _filled(value: Any, month: Month) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, month) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, month) for item in value]
    return value.replace(_PLACE, month) if isinstance(value, str) else value


def _says(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_says(item) for item in value.values())
    if isinstance(value, list):
        return any(_says(item) for item in value)
    return isinstance(value, str) and _PLACE in value
