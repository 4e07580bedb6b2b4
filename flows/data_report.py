"""What a report says of the data: the funnel, what was dropped, distributions, what has changed.

Every unit is counted once and the counts are kept in the store (`infra.report.summary`), so that a
report costs what is new. Memory is bounded by one unit and by the names that are counted.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from flows.plan import differences
from infra.environment import Environment
from infra.manifests import previous
from infra.report.content import Bars, DropGroup, Example, FunnelRow, Table
from infra.report.summary import OTHERS, SUMMARIES, UNKNOWN, Summary, read_summaries
from infra.shards import read_shard
from infra.store import Store
from infra.work import Work
from schemas.artifact import DropTable, ImageShards, PairTable, Unit
from schemas.base import digest
from schemas.fingerprint import code_digests
from schemas.manifest import Manifest, Output
from tasks.filters.personal_data import masked

_KEPT = (PairTable.kind, ImageShards.kind)
_FEW = 64  # units that are counted here rather than by a cluster that takes seconds to start
_THUMBNAIL = 64  # pixels
# A hostile picture must not take the memory of the machine that shows it.
_MOST_PIXELS = 20_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # none that starts another program to decode
_SEARCHED = 32  # shards in which the pictures of a stage's examples are looked for
_ROWS = 20  # of a table of sources, domains or changes

Manifests = Mapping[str, Manifest]


@dataclass(frozen=True)
class DataStage:
    """What a stage of data kept and dropped."""

    manifest: Manifest
    kind: str  # of what it kept
    kept: Summary
    drops: Summary


def data_stages(
    manifests: Manifests, store: Store, environment: Environment, folder: Path
) -> list[DataStage]:
    """The stages that keep pairs or images, in order, with what their outputs hold."""
    work = _work(manifests, store, environment, folder)
    found = []
    for manifest in manifests.values():
        kept = [one for kind in _KEPT for one in of_kind(manifest, kind)]
        if kept:
            drops = of_kind(manifest, DropTable.kind)
            summaries = [_summary(outputs, work) for outputs in (kept[:1], drops)]
            found.append(DataStage(manifest, kept[0].kind, *summaries))
    return found


def _work(manifests: Manifests, store: Store, environment: Environment, folder: Path) -> Work:
    """What maps over units; its key says which code has counted, no matter for which pipeline."""
    units = [u for m in manifests.values() for o in m.outputs.values() for u in o.units]
    if len(units) < _FEW:
        environment = replace(environment, dask="inline")
    code = digest(code_digests(["infra.report.summary"]))
    return Work(store, environment, folder / "scratch", folder / "state", code)


def _summary(outputs: Iterable[Output], work: Work) -> Summary:
    paths = []
    for output in outputs:
        units = work.map(SUMMARIES[output.kind], output.units).units("summary")
        paths += [work.fetch(unit) for unit in units]
    return read_summaries(paths)


def funnel(
    stages: Iterable[DataStage], manifests: Manifests, store: Store, folder: Path
) -> Iterator[FunnelRow]:
    """What each stage kept and dropped, by reason, with examples."""
    for stage in stages:
        pictures = _pictures(stage, manifests, store, folder)
        reasons = stage.drops.of("reason")
        examples = {
            reason: tuple(_example(row, pictures) for row in rows)
            for reason, rows in stage.drops.examples.items()
        }
        groups = [
            DropGroup(reason, count, examples.get(reason, ()))
            for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        ]
        name = stage.manifest.stage
        yield FunnelRow(name, stage.kept.total(), stage.drops.total(), tuple(groups))


def _example(row: Mapping[str, str], pictures: Mapping[str, bytes]) -> Example:
    """Without personal data, which what was dropped before a filter masked it may hold."""
    caption, detail = (masked(row[text])[0] for text in ("caption", "detail"))
    return Example(caption, detail, row["image_url"], pictures.get(row["key"]))


def _pictures(
    stage: DataStage, manifests: Manifests, store: Store, folder: Path
) -> dict[str, bytes]:
    """Small JPEGs of the examples, from the shards that the stage read; from few of many."""
    wanted = {row["key"]: row["unit"] for rows in stage.drops.examples.values() for row in rows}
    shards = [
        unit
        for ref in stage.manifest.inputs.values()
        if ref.kind == ImageShards.kind and (source := manifests.get(ref.stage))
        for unit in source.outputs[ref.output].units
    ]
    # A table of drops bears the name of the shard that they are from, where it is from one.
    shards.sort(key=lambda unit: not any(unit.name in table for table in wanted.values()))
    found: dict[str, bytes] = {}
    for unit in shards[:_SEARCHED] if wanted else []:
        for sample in read_shard(store.fetch(unit, folder), only=wanted):
            if picture := thumbnail(sample.image):
                found[sample.key] = picture
        if len(found) == len(wanted):
            break
    return found


def thumbnail(image: bytes) -> bytes | None:
    """A small JPEG of a picture, decoded and written anew; None for one that cannot be shown."""
    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                return None
            opened.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
            small = opened.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # what is shown here was dropped, often because it cannot be decoded
    target = io.BytesIO()
    small.save(target, "JPEG", quality=80)
    return target.getvalue()


def by_name(stages: list[DataStage], what: str, labels: Mapping[str, str]) -> Iterator[Table]:
    """What each stage kept and dropped of each source or domain, the largest first.

    Args:
        labels: other names to count under, by name.
    """
    columns = [
        (_relabelled(stage.kept.of(what), labels), _relabelled(stage.drops.of(what), labels))
        for stage in stages
    ]
    entered: Counter[str] = Counter()
    for both in columns:
        for counts in both:
            for name, count in counts.items():
                entered[name] = max(entered[name], count)
    names = sorted(entered, key=lambda name: (name == OTHERS, -entered[name], name))
    rows = [(name, *(_cell([name], both) for both in columns)) for name in names[:_ROWS]]
    if rest := names[_ROWS:]:
        rows.append((f"{len(rest):,} more", *(_cell(rest, both) for both in columns)))
    if rows:
        heads = (what, *(stage.manifest.stage for stage in stages))
        said = "What each stage kept and, after a slash, dropped."
        yield Table(f"Pairs by {what}", heads, tuple(rows), said)


def _cell(names: Sequence[str], both: Iterable[Mapping[str, int]]) -> str:
    kept, dropped = (sum(counts.get(name, 0) for name in names) for counts in both)
    return f"{kept:,} / {dropped:,}" if dropped else f"{kept:,}"


def _relabelled(counts: Mapping[str, int], labels: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in counts.items():
        label = labels.get(name, name)
        found[label] = found.get(label, 0) + count
    return found


def declared(manifests: Manifests) -> dict[str, str]:
    """By name of a source what named it in the declaration; files of one name may have several."""
    found: dict[str, set[str]] = {}
    for manifest in manifests.values():
        for source in manifest.sources:
            found.setdefault(source.name, set()).add(source.declared or source.name)
    return {name: ", ".join(sorted(labels)) for name, labels in found.items()}


def distributions(stages: list[DataStage]) -> Iterator[Bars]:
    """Of what was found first, and of what is left."""
    if not stages:
        return
    first, last = stages[0], stages[-1]
    names = (f"after {first.manifest.stage}", f"after {last.manifest.stage}")
    titles = {
        "words": "Caption length, words", "language": "Language",
        "side": "Shorter side, pixels", "aspect": "Width : height",
    }  # fmt: skip
    for what, title in titles.items():
        before, after = (stage.kept.of(what) for stage in (first, last))
        if what == "language" and before.keys() <= {UNKNOWN}:
            before = Counter()  # no filter had looked at it yet
        if after:
            order = sorted({*before, *after}, key=_size)
            if what == "language":
                order = sorted(order, key=lambda name: -after.get(name, 0))[:12]
            rows = tuple((one, before.get(one, 0), after.get(one, 0)) for one in order)
            yield Bars(title, names if before and first is not last else ("", names[1]), rows)
    sizes = last.kept.of("bytes")
    top = sorted((name for name in sizes if name != OTHERS), key=lambda name: -sizes[name])[:12]
    if top:
        rows = tuple((name, 0, sizes[name] // 1000) for name in top)
        yield Bars("Domains with most kilobytes of images", ("", names[1]), rows)


def _size(label: str) -> tuple[float, str]:
    """Where a class of numbers stands among its like."""
    wide, _, high = label.partition(":")
    if high:
        return float(wide) / float(high), label
    start = label.partition("–")[0]
    return (float(start), label) if start.isdigit() else (float("inf"), label)


def changes(manifests: Manifests, store: Store) -> Iterator[Table]:
    """Of each stage that was made before, how it differs from what it was then."""
    for manifest in manifests.values():
        before = previous(store, manifest.pipeline, manifest.stage)
        if before is None:
            continue
        rows = [(change.what, _short(change.old), _short(change.new)) for change in
                differences(before.identity, manifest.identity)]  # fmt: skip
        rows.sort(key=lambda row: row[0].startswith("code "))
        counters = sorted({*before.counts, *manifest.counts})
        counted = [
            (name, f"{before.counts.get(name, 0):,}", f"{manifest.counts.get(name, 0):,}")
            for name in counters if before.counts.get(name, 0) != manifest.counts.get(name, 0)
        ]  # fmt: skip
        more = [(f"{len(rows) - _ROWS} more differences", "", "")] if len(rows) > _ROWS else []
        then, now = (_units(one) for one in (before, manifest))
        note = (
            f"Made {_time(manifest)}; before that, {_time(before)}. Units: {len(now - then):,} new,"
            f" {len(now & then):,} the same, {len(then - now):,} gone."
        )
        columns = ("what", "before", "now")
        yield Table(manifest.stage, columns, (*counted, *rows[:_ROWS], *more), note)


def _units(manifest: Manifest) -> set[Unit]:
    return {unit for output in manifest.outputs.values() for unit in output.units}


def _short(value: object) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _time(manifest: Manifest) -> str:
    return f"{datetime.fromtimestamp(manifest.run.ended, UTC):%Y-%m-%d %H:%M} UTC"


def of_kind(manifest: Manifest, kind: str) -> list[Output]:
    """The outputs of one kind."""
    return [output for output in manifest.outputs.values() if output.kind == kind]
