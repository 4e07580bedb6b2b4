"""Gather what a pipeline's latest manifests say into its report, and write it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows import data_report
from flows.alternatives import generators, votes
from flows.data_report import of_kind
from flows.declaration import BoundPipeline
from flows.rivals import contests
from infra.demo_web.access_log import LOG_FILE, read_log, violations
from infra.demo_web.truth import read_truth, score_pipeline
from infra.environment import Environment
from infra.manifests import METRICS, latest
from infra.provenance import machine
from infra.report.content import (
    Content,
    Curve,
    Node,
    Sheet,
    StageRow,
    Table,
)
from infra.report.page import render
from infra.shards import read_shard
from infra.store import Store
from schemas.artifact import DropTable, Evaluation, ImageShards
from schemas.manifest import Manifest, Output

_POINTS = 400  # of a curve

Manifests = Mapping[str, Manifest]


def write_report(
    pipeline: BoundPipeline,
    store: Store,
    environment: Environment,
    show: Callable[[Content], None] = lambda content: None,
) -> Path:
    """Write `reports/<pipeline>/index.html` in the home folder; its path.

    Args:
        show: is given what the report says, to show it elsewhere, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        content = gather(pipeline, store, environment, Path(folder))
    path = environment.home / "reports" / pipeline.name / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(content), encoding="utf-8")
    show(content)
    return path


def gather(
    pipeline: BoundPipeline, store: Store, environment: Environment, folder: Path
) -> Content:
    """What the report of a pipeline says; stages that are not made yet are left out."""
    found = {name: latest(store, pipeline.name, name) for name in pipeline.stages}
    manifests = {name: manifest for name, manifest in found.items() if manifest}
    sheets, tables = _evaluations(manifests, store, folder)
    truth = _truth(pipeline, manifests, store, environment, folder)
    curves = tuple(_curves(manifests, store, folder))
    data = data_report.data_stages(manifests, store, environment, folder)
    return Content(
        pipeline=pipeline.name,
        machine=machine(),
        sheets=sheets,
        tables=(
            *votes(manifests, store, environment, folder),
            *generators(pipeline.name, manifests, store, folder),
            *tables,
            *truth,
        ),
        contests=tuple(contests(pipeline, manifests, store, environment, folder)),
        funnel=tuple(data_report.funnel(data, manifests, store, folder)),
        data=(
            *data_report.by_name(data, "source", data_report.declared(manifests)),
            *data_report.by_name(data, "domain", {}),
        ),
        bars=tuple(data_report.distributions(data)),
        changes=tuple(data_report.changes(manifests, store)),
        counts=tuple(_counts(manifests)),
        curves=curves,
        stages=tuple(_stage_row(manifest) for manifest in manifests.values()),
        graph=tuple(_node(manifest) for manifest in manifests.values()),
        notes=(
            f"{len(manifests)} of {len(pipeline.stages)} stages are made.",
            *_collapses(curves),
        ),
    )


def _evaluations(
    manifests: Manifests, store: Store, folder: Path
) -> tuple[tuple[Sheet, ...], tuple[Table, ...]]:
    sheets, tables = [], []
    for manifest in manifests.values():
        for output in of_kind(manifest, Evaluation.kind):
            for unit in output.units:
                path = store.fetch(unit, folder)
                title = unit.name.rsplit(".", 1)[0].replace("_", " ").replace("-", " ")
                if unit.name.endswith(".png"):
                    sheets.append(Sheet(title, path.read_bytes()))
                elif unit.name.endswith(".json"):
                    tables += _json_tables(title, json.loads(path.read_text()))
    return tuple(sheets), tuple(tables)


def _json_tables(title: str, value: Any) -> list[Table]:
    """A mapping as names and values, a list of mappings as rows; deeper values as JSON."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        columns = tuple(value[0])
        rows = tuple(tuple(_cell(row.get(c)) for c in columns) for row in value)
        return [Table(title, columns, rows)]
    if isinstance(value, dict):
        tables = {title: value.get("metrics", value)}
        if value.get("comparison"):
            tables["what was compared"] = value["comparison"]
        return [
            Table(name, ("what", "value"), tuple((key, _cell(flat[key])) for key in flat))
            for name, flat in tables.items()
        ]
    return []


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _truth(
    pipeline: BoundPipeline, manifests: Manifests, store: Store, environment: Environment,
    folder: Path,
) -> tuple[Table, ...]:  # fmt: skip
    """For a generated site: how many of each kind of dirt were caught, and good ones lost."""
    final = _final_shards(manifests)
    if pipeline.web is None or final is None:
        return ()
    site = environment.home / "web" / pipeline.web.variant
    if not (site / "truth.jsonl").exists():
        return ()
    kept = [
        {"image_url": sample.record["image_url"]}
        for unit in final.units
        for sample in read_shard(store.fetch(unit, folder))
    ]
    drops = [row for m in manifests.values() for row in _drop_rows(m, store, folder)]
    score = score_pipeline(read_truth(site), kept, drops)
    rows = tuple(
        (str(one.kind), one.meaning, str(one.expected), str(one.total), str(one.caught),
         str(one.lost), ", ".join(f"{why} {n}" for why, n in one.reasons.items()))
        for one in score.kinds
    )  # fmt: skip
    columns = ("kind", "meaning", "should be", "total", "caught", "lost", "dropped as")
    note = (
        f"Dirt caught: {score.dirt_caught} of {score.dirt_total} ({score.catch_rate:.2%})."
        f" Good pairs lost: {score.good_lost} of {score.good_total} ({score.loss_rate:.2%})."
        f" Kept images that the site's truth does not know: {score.unknown}.{_behaviour(site)}"
    )
    return (Table("What the site had in it, and what became of it", columns, rows, note),)


def _behaviour(site: Path) -> str:
    """What the site's own log says of how it was asked."""
    if not (site / LOG_FILE).exists():
        return ""
    entries = read_log(site / LOG_FILE)
    wrong = violations(entries)
    some = f", such as: {wrong[0]}" if wrong else ""
    return (
        f" The server's own log of all runs has {len(entries):,} requests;"
        f" {len(wrong)} of them should not have been made{some}."
    )


def _final_shards(manifests: Manifests) -> Output | None:
    shards = [o for m in manifests.values() for o in of_kind(m, ImageShards.kind)]
    return shards[-1] if shards else None


def _drop_rows(manifest: Manifest, store: Store, folder: Path) -> Iterable[dict[str, Any]]:
    for output in of_kind(manifest, DropTable.kind):
        for unit in output.units:
            yield from pq.read_table(store.fetch(unit, folder)).to_pylist()


def _counts(manifests: Manifests) -> Iterable[Table]:
    rows = [
        (manifest.stage, name, f"{count:,}")
        for manifest in manifests.values()
        for name, count in sorted(manifest.counts.items())
    ]
    if rows:
        yield Table("All counters", ("stage", "counter", "count"), tuple(rows))


def _curves(manifests: Manifests, store: Store, folder: Path) -> Iterable[Curve]:
    for manifest in manifests.values():
        series: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for unit in manifest.side:
            if unit.name == METRICS:
                for line in store.fetch(unit, folder).read_text().splitlines():
                    entry = json.loads(line)
                    series[entry["name"]].append((entry["step"], entry["value"]))
        for name, points in series.items():
            if len(points) > 1:
                every = max(1, len(points) // _POINTS)
                yield Curve(manifest.stage, name, tuple(points[::every]))


def _collapses(curves: Iterable[Curve]) -> Iterable[str]:
    """Says of each training whose codes no longer told pictures apart that it was so, and when."""
    for curve in curves:
        steps = [step for step, value in curve.points if value]
        if curve.name != "codebook_collapsed" or not steps:
            continue
        if curve.points[-1][1]:
            yield (
                f"{curve.stage}: its codebook has collapsed: nearly all codes of a picture are the"
                " same few, so nothing that is trained on them can draw."
            )
        else:
            yield f"{curve.stage}: its codebook was collapsed up to update {steps[-1]}."


def _stage_row(manifest: Manifest) -> StageRow:
    outputs = ", ".join(
        f"{name}: {sum(u.records or 0 for u in output.units):,} in {len(output.units)} units"
        for name, output in manifest.outputs.items()
    )
    run = manifest.run
    return StageRow(
        manifest.stage, manifest.identity.task, run.ended - run.started, outputs,
        run.units_made, run.units_reused, manifest.fingerprint, manifest.provenance,
        manifest.accepted.because if manifest.accepted else "",
    )  # fmt: skip


def _node(manifest: Manifest) -> Node:
    inputs = tuple(sorted({ref.stage for ref in manifest.inputs.values()}))
    return Node(manifest.stage, inputs, manifest.provenance[:16])
