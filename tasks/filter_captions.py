"""Drop pairs by their captions before anything is fetched (DALL-E, appendix C), with a reason.

Filters are asked in the declared order; the first that objects gives the reason.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator, BeforeValidator, Field

from infra.tables import TableWriter, read_table
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, PairTable, Unit
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA, drop_record
from schemas.stage import StageParams, stage
from tasks.filters import FilterSpec, Objection, as_specs, build_filter, check_specs, filter_modules
from tasks.funnel import tally

STAGE = "filter_captions"


class CaptionFilter(Protocol):
    """A module of `tasks.filters` that looks at captions."""

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """An objection, or None; what the filter learned (the language) it writes to the row."""


Specs = Annotated[
    tuple[FilterSpec, ...],
    BeforeValidator(as_specs),
    AfterValidator(lambda specs: check_specs(specs, "caption")),
]


class FilterCaptionsParams(StageParams):
    """Which filters, in which order.

    Attributes:
        filters: `{name: parameters}` each; names are modules of `tasks.filters`.
    """

    filters: Specs = Field(min_length=1)

    def modules(self) -> tuple[str, ...]:
        """The chosen filters are part of the code."""
        return filter_modules(self.filters)


class FilteredPairs(NamedTuple):
    """The pairs that every filter accepts, and the others."""

    kept: PairTable
    drops: DropTable


@stage(retries=2, memory_gb=1.0, versions=("py3langid", "pyarrow"))
def filter_captions(pairs: PairTable, params: FilterCaptionsParams, work: Work) -> FilteredPairs:
    """Keep the pairs whose captions every filter accepts."""
    mapped = work.map(filter_part, pairs.units, filters=params.filters)
    kept, drops = PairTable(units=mapped.units("kept")), DropTable(units=mapped.units("drops"))
    tally(STAGE, kept, drops, work)
    return FilteredPairs(kept, drops)


def filter_part(unit: Unit, shard: ShardWork, filters: tuple[FilterSpec, ...]) -> None:
    """Filter one part of the table."""
    chosen = [build_filter(spec) for spec in filters]
    kept, drops = shard.scratch / unit.name, shard.scratch / f"drops-{unit.name}"
    with TableWriter(kept, PAIR_SCHEMA) as accept, TableWriter(drops, DROP_SCHEMA) as reject:
        for pair in read_table(shard.fetch(unit), PAIR_SCHEMA):
            drop = judge(pair, chosen)
            if drop is None:
                accept.write(pair)
            else:
                reject.write(drop)
    for output, path, rows in (("kept", kept, accept.rows), ("drops", drops, reject.rows)):
        if rows:
            shard.add(output, path, path.name, rows)


def judge(pair: dict[str, Any], filters: list[CaptionFilter]) -> dict[str, Any] | None:
    """The drop that the first objecting filter makes of a pair, or None."""
    for one in filters:
        objection = one.judge(pair)
        if objection is not None:
            return drop_record(pair, STAGE, objection.reason, objection.detail)
    return None
