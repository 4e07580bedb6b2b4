"""A list of crawls, as Common Crawl publishes it: which of them ended in a month.

The list is a JSON array with an object a crawl, of which `id` and `to`, the time of the last page,
are read. It comes from elsewhere: an id, which becomes a part of paths, has no slash.
Format: https://index.commoncrawl.org/collinfo.json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from infra.errors import PermanentError
from schemas.stage import Listing


class Crawl(BaseModel):
    """One entry of the list; what else it says is of no use here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", max_length=100)
    to: datetime

    @field_validator("to", mode="before")
    @classmethod
    def _utc(cls, value: Any) -> datetime:
        # Pydantic would also take a number, as seconds.
        if not isinstance(value, str):
            raise ValueError("it is no time such as '2026-09-20T14:05:40'")
        found = datetime.fromisoformat(value)
        try:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except OverflowError as error:
            raise ValueError(str(error)) from error


_ARRAY = TypeAdapter(list[Any])

Crawls = Mapping[str, tuple[Crawl, ...]]  # by the path or URL of their list


def read_crawls(content: bytes, name: str) -> tuple[Crawl, ...]:
    """The crawls of a list; `name` is what errors call it.

    Raises:
        PermanentError: if it is no such list, names no crawl, or an entry is wrong.
    """
    try:
        entries = _ARRAY.validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise PermanentError(f"{name}: it is no list of crawls: {problem}") from error
    # While Common Crawl's store was down, its list was empty; months must not vanish by that.
    if not entries:
        raise PermanentError(f"{name}: it is no list of crawls: it is empty")
    return tuple(_crawl(number, entry, name) for number, entry in enumerate(entries, start=1))


def _crawl(number: int, entry: Any, name: str) -> Crawl:
    try:
        return Crawl.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PermanentError(
            f"{name}: entry {number}, {repr(entry)[:200]}: {field}: {first['msg']}"
        ) from error


def by_crawl(listing: Listing, crawls: Crawls) -> list[Listing]:
    """A listing of each crawl that ended in its month, by id; itself if it speaks of no crawls."""
    if listing.crawls is None:
        return [listing]
    ended = {one.id for one in crawls[listing.crawls] if f"{one.to:%Y-%m}" == listing.month}
    return [listing.of(crawl) for crawl in sorted(ended)]


def months_without(listings: Iterable[Listing], crawls: Crawls) -> dict[str, list[str]]:
    """By list of crawls the months that are asked for and in which none ended."""
    found: dict[str, set[str]] = {}
    for one in listings:
        if one.crawls is not None and one.month is not None and not by_crawl(one, crawls):
            found.setdefault(one.crawls, set()).add(one.month)
    return {name: sorted(months) for name, months in found.items()}
