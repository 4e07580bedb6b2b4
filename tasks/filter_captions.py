"""Drop pairs by their captions before anything is fetched (DALL-E, appendix C), with a reason.

Filters are asked in the declared order; the first that objects gives the reason. What a filter
changes (personal data that is masked) is written down; the pair keeps its key. A dry run drops and
changes nothing: every filter looks at every pair, and what it measured and would do is a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator, BeforeValidator, Field

from infra.tables import TableWriter, read_table
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, Findings, PairTable, Unit
from schemas.records import DROP_SCHEMA, FINDING_SCHEMA, PAIR_SCHEMA, drop_record
from schemas.stage import StageParams, stage
from tasks.filters import (
    Change,
    FilterSpec,
    Objection,
    as_specs,
    build_filter,
    check_specs,
    filter_modules,
    filter_sources,
    prepare_filters,
)
from tasks.findings import finding_rows
from tasks.funnel import tally

STAGE = "filter_captions"
_BATCH = 8192  # pairs that are judged together

Verdict = Objection | Change | None
Pair = dict[str, Any]


class CaptionFilter(Protocol):
    """A module of `tasks.filters` that looks at captions."""

    def judge(self, pair: Pair) -> Verdict:
        """An objection, another caption, or None; what was learned (the language) is written to
        the row."""


Specs = Annotated[
    tuple[FilterSpec, ...],
    BeforeValidator(as_specs),
    AfterValidator(lambda specs: check_specs(specs, "caption")),
]


class FilterCaptionsParams(StageParams):
    """Which filters, in which order.

    Attributes:
        filters: `{name: parameters}` each; names are modules of `tasks.filters`.
        dry_run: keep every pair as it is, and write down what each filter measures and would do.
    """

    filters: Specs = Field(min_length=1)
    dry_run: bool = False

    def modules(self) -> tuple[str, ...]:
        """The chosen filters are part of the code."""
        return filter_modules(self.filters)

    def sources(self) -> tuple[str, ...]:
        """The lists that filters read from files."""
        return filter_sources(self.filters)


class FilteredPairs(NamedTuple):
    """The pairs that every filter accepts, the others, and what was changed or measured."""

    kept: PairTable
    drops: DropTable
    findings: Findings


@stage(retries=2, memory_gb=1.0, versions=("py3langid", "pyarrow"))
def filter_captions(pairs: PairTable, params: FilterCaptionsParams, work: Work) -> FilteredPairs:
    """Keep the pairs whose captions every filter accepts."""
    prepared = prepare_filters(params.filters, pairs.units, work)
    items = _plans(pairs.units, prepared, work) if prepared else pairs.units
    function = try_part if params.dry_run else filter_part
    mapped = work.map(function, items, filters=params.filters, planned=bool(prepared))
    kept = pairs if params.dry_run else PairTable(units=mapped.units("kept"))
    drops, findings = DropTable(units=mapped.units("drops")), mapped.units("findings")
    tally(STAGE, kept, drops, work)
    return FilteredPairs(kept, drops, Findings(units=findings))


def _plans(
    parts: tuple[Unit, ...], prepared: dict[int, tuple[Unit, ...]], work: Work
) -> tuple[Unit, ...]:
    """For each part a unit that names it, and beside it what filters prepared."""
    items = []
    for number, part in enumerate(parts):
        beside = {str(place): units[number].model_dump() for place, units in prepared.items()}
        path = work.scratch / f"plan-{number}.json"
        path.write_text(json.dumps({"part": part.model_dump(), "beside": beside}, sort_keys=True))
        items.append(work.add(path, path.name))
    return tuple(items)


def _chosen(
    item: Unit, shard: ShardWork, specs: tuple[FilterSpec, ...], planned: bool
) -> tuple[Unit, list[CaptionFilter]]:
    """The part that an item is or, if it is a plan, names; and the filters made for it."""
    if not planned:
        return item, [build_filter(spec) for spec in specs]
    plan = json.loads(shard.fetch(item).read_text())
    files = {int(n): shard.fetch(Unit(**unit)) for n, unit in plan["beside"].items()}
    filters = [build_filter(spec, files.get(place)) for place, spec in enumerate(specs)]
    return Unit(**plan["part"]), filters


def filter_part(
    item: Unit, shard: ShardWork, filters: tuple[FilterSpec, ...], planned: bool
) -> None:
    """Filter one part of the table."""
    unit, chosen = _chosen(item, shard, filters, planned)
    names = [next(iter(spec)) for spec in filters]
    schemas = {"kept": PAIR_SCHEMA, "drops": DROP_SCHEMA, "findings": FINDING_SCHEMA}
    paths = {name: shard.scratch / f"{name}-{unit.name}" for name in schemas}
    paths["kept"] = shard.scratch / unit.name
    with ExitStack() as stack:
        tables = {n: stack.enter_context(TableWriter(paths[n], s)) for n, s in schemas.items()}
        for pairs in _batches(read_table(shard.fetch(unit), PAIR_SCHEMA)):
            drops, changes = judge(pairs, dict(zip(names, chosen, strict=True)))
            for pair, drop in zip(pairs, drops, strict=True):
                tables["kept" if drop is None else "drops"].write(drop or pair)
            for change in changes:
                tables["findings"].write(change)
    for name, table in tables.items():
        if table.rows:
            shard.add(name, paths[name], paths[name].name, table.rows)


def judge(
    pairs: list[Pair], filters: dict[str, CaptionFilter]
) -> tuple[list[Pair | None], list[Pair]]:
    """For each pair the drop that the first objecting filter makes of it, or None; and the changes
    (rows of `FINDING_SCHEMA`), which are made in the pairs."""
    drops: list[Pair | None] = [None] * len(pairs)
    masks = [one.mask for one in filters.values() if hasattr(one, "mask")]
    changes, waiting = [], list(range(len(pairs)))
    for name, one in filters.items():
        verdicts = judge_many(one, [pairs[place] for place in waiting])
        for place, verdict in zip(waiting, verdicts, strict=True):
            if isinstance(verdict, Change):
                pairs[place]["caption"] = verdict.caption
                row = {"key": pairs[place]["key"], "filter": name, "detail": verdict.detail}
                changes.append(row)
            elif verdict is not None:
                drop = drop_record(pairs[place], STAGE, verdict.reason, verdict.detail)
                for mask in masks:
                    drop |= {text: mask(drop[text]) for text in ("caption", "detail")}
                drops[place] = drop
        waiting = [place for place in waiting if drops[place] is None]
    return drops, changes


def judge_many(one: CaptionFilter, pairs: list[Pair]) -> list[Verdict]:
    """A filter's verdicts on pairs, all at once where it can."""
    many = getattr(one, "judge_many", None)
    return many(pairs) if many else [one.judge(pair) for pair in pairs]


def try_part(item: Unit, shard: ShardWork, filters: tuple[FilterSpec, ...], planned: bool) -> None:
    """Write down what each filter would do with every pair of one part."""
    unit, chosen = _chosen(item, shard, filters, planned)
    path = shard.scratch / f"findings-{unit.name}"
    with TableWriter(path, FINDING_SCHEMA) as table:
        for pairs in _batches(read_table(shard.fetch(unit), PAIR_SCHEMA)):
            first: dict[str, Objection] = {}
            for spec, one in zip(filters, chosen, strict=True):
                name = next(iter(spec))
                measure = getattr(one, "measure", None)
                measured = [measure(pair) if measure else {} for pair in pairs]
                # Copies: a filter may write to a row, and nothing is to be changed.
                verdicts = judge_many(one, [dict(pair) for pair in pairs])
                for pair, values, verdict in zip(pairs, measured, verdicts, strict=True):
                    for row in finding_rows(pair["key"], name, values, verdict):
                        table.write(row)
                    if isinstance(verdict, Objection):
                        first.setdefault(pair["key"], verdict)
                        shard.count(f"objections/{name}")
            for objection in first.values():
                shard.count(f"would_drop/{objection.reason}")
    shard.add("findings", path, path.name, table.rows)


def _batches(rows: Iterable[Pair]) -> Iterator[list[Pair]]:
    stream = iter(rows)
    while batch := list(islice(stream, _BATCH)):
        yield batch
