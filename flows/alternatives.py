"""The parts of a report that need other results: other generators on the same data, and votes.

All is read from manifests and from the file of votes; nothing is drawn or measured for a report.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.lineage import Manifests, latest_of, made_from
from flows.voting import FILE
from infra.environment import Environment
from infra.errors import DamagedUnit
from infra.report.content import Table
from infra.store import Store
from infra.voting.ballot import QUESTIONS
from infra.voting.result import VOTERS, Outcome, count
from infra.voting.votes import Asked, Votes
from schemas.artifact import Candidates, CodeShards, Evaluation, Prior, RankedCandidates, Unit
from schemas.manifest import Manifest
from tasks.ballots import contents, pictures_of
from tasks.evaluation.passes import passes

_SHOWN = ("/right", "/right_average", "/own_caption_first")  # ends of metrics of every group
_WHOLE = ("clip_score/", "fid/", "precision/", "recall/")  # beginnings of metrics of all pictures


@dataclass(frozen=True)
class _Entry:
    """What one pipeline's generator did: one column of the table."""

    pipeline: str
    network: str
    facts: Mapping[str, str]
    metrics: Mapping[str, float]
    judges: str


def generators(pipeline: str, manifests: Manifests, store: Store, folder: Path) -> Iterator[Table]:
    """Generators of other pipelines that were trained on the same codes, beside this one's."""
    ours = made_from(manifests, Prior.kind)
    if ours is None:
        return
    data = _codes(ours)
    others = [name for name in store.names("pipelines") if name != pipeline]
    found = {name: latest_of(name, store) for name in others}
    same = {
        name: made
        for name, made in found.items()
        if (prior := made_from(made, Prior.kind)) and _codes(prior) == data
    }
    if not same:
        return
    entries, lost = [_entry(pipeline, manifests, store, folder)], []
    for name, made in same.items():
        try:
            entries.append(_entry(name, made, store, folder))
        except DamagedUnit as error:  # another pipeline's files must not cost this one its report
            lost.append(f" {name} is left out: {error}.")
    yield _table(entries, "".join(lost))


def votes(
    manifests: Manifests, store: Store, environment: Environment, folder: Path
) -> Iterator[Table]:
    """What people said of the pictures that a pipeline has ranked."""
    if not (environment.home / FILE).exists():
        return
    ranked = [_units(manifest, RankedCandidates.kind) for manifest in manifests.values()]
    ours = {
        contents(pictures_of(store.fetch(unit, folder) for unit in units))
        for units in ranked
        if units
    }
    try:
        rows = _rows(Votes(environment.home / FILE), ours)
    except sqlite3.DatabaseError as error:
        yield Table("What people say", (), (), f"The votes cannot be read: {error}.")
        return
    if rows:
        columns = ("A", "B", "question", "captions for A", "share of A", "95 % interval", "open")
        note = (
            f"A caption is decided by the majority of the first {VOTERS} people who saw it; others"
            " are open. Intervals are Wilson's, over captions."
        )
        yield Table("What people say", columns, tuple(rows), note)


def _rows(cast: Votes, ours: set[str]) -> list[tuple[str, ...]]:
    return [
        _voted(asked, one)
        for asked in cast.ballots()
        if ours & {asked.first.digest, asked.second.digest}
        for one in count(asked.pairs, cast.on(pair.id for pair in asked.pairs))
    ]


def _voted(asked: Asked, one: Outcome) -> tuple[str, ...]:
    share = "" if one.share is None else f"{one.share:.1%}"
    interval = "" if one.low is None or one.high is None else f"{one.low:.1%} to {one.high:.1%}"
    decided = f"{one.first} of {one.first + one.second}"
    question = QUESTIONS[one.question]
    return (
        asked.first.name,
        asked.second.name,
        question,
        decided,
        share,
        interval,
        str(one.undecided),
    )


def _codes(prior: Manifest) -> set[str]:
    return {ref.digest for ref in prior.inputs.values() if ref.kind == CodeShards.kind}


def _entry(pipeline: str, manifests: Manifests, store: Store, folder: Path) -> _Entry:
    prior = made_from(manifests, Prior.kind)
    assert prior is not None, "only pipelines with a prior are entered"
    network = str(prior.params.get("network"))
    steps = prior.params.get("training", {}).get("steps")
    facts = {"updates of training": f"{steps:,}"} if steps else {}
    drawn = made_from(manifests, Candidates.kind, prior)
    if drawn is None:
        return _Entry(pipeline, network, facts, {}, "")
    facts |= _drawing(network, drawn, store, folder)
    ranked = made_from(manifests, RankedCandidates.kind, drawn)
    judged = made_from(manifests, Evaluation.kind, ranked) if ranked else None
    measured = _measured(judged, store, folder) if judged else {"metrics": {}}
    judges = json.dumps([measured.get("evaluator"), measured.get("ranker")], sort_keys=True)
    return _Entry(pipeline, network, facts, measured["metrics"], judges)


def _drawing(network: str, drawn: Manifest, store: Store, folder: Path) -> dict[str, str]:
    path = store.fetch(_units(drawn, Candidates.kind)[0], folder)
    facts = {}
    # The generator of another pipeline may have been removed, or have other settings, since.
    with contextlib.suppress(ModuleNotFoundError, ValueError):
        facts["passes a picture"] = str(passes(network, drawn.params.get("sampling", {}), path))
    run, pictures = drawn.run, drawn.counts.get("pictures", 0)
    if pictures and not run.units_reused:  # else the time is that of a part of them
        facts["pictures a second"] = f"{pictures / (run.ended - run.started):.3g}"
    if "candidates" in drawn.params:
        facts["candidates"] = str(drawn.params["candidates"])
    return facts


def _measured(judged: Manifest, store: Store, folder: Path) -> dict[str, Any]:
    for unit in _units(judged, Evaluation.kind):
        if unit.name == "metrics.json":
            found: dict[str, Any] = json.loads(store.fetch(unit, folder).read_text())
            return found
    return {"metrics": {}}


def _units(manifest: Manifest, kind: str) -> list[Unit]:
    return [unit for out in manifest.outputs.values() if out.kind == kind for unit in out.units]


def _table(entries: list[_Entry], lost: str) -> Table:
    facts = dict.fromkeys(fact for one in entries for fact in one.facts)
    metrics = dict.fromkeys(name for one in entries for name in one.metrics if _is_shown(name))
    rows = [(fact, *(one.facts.get(fact, "") for one in entries)) for fact in facts]
    for name in metrics:
        values = (one.metrics.get(name) for one in entries)
        rows.append((name, *("" if value is None else f"{value:.4g}" for value in values)))
    note = (
        "Trained on the same codes. Pictures a second are those of the whole stage, its start"
        " included, on the machine and beside the work that there was."
    )
    if len({one.judges for one in entries if one.judges}) > 1:
        note += " They were not judged and ranked by the same models: scores do not compare."
    note += lost
    columns = ("", *(f"{one.pipeline} ({one.network})" for one in entries))
    return Table("Generators on the same data", columns, tuple(rows), note)


def _is_shown(metric: str) -> bool:
    if metric.startswith("checker/"):
        return False
    blurred = "/blur_" in metric and not metric.endswith("/blur_0")
    return metric.endswith(_SHOWN) or (metric.startswith(_WHOLE) and not blurred)
