"""What a run would do: which stages are cached, which would run, and because of which change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from flows.declaration import BoundPipeline, BoundStage
from flows.stage_runner import StageRunner, references
from infra.errors import PermanentError
from infra.manifests import latest
from schemas.base import canonical
from schemas.fingerprint import code_digests, versions_of
from schemas.manifest import Identity, InputRef


@dataclass(frozen=True)
class Change:
    """One difference between what made the present outputs and what would run now."""

    what: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.what.startswith("code "):
            return f"{self.what}: {'added' if self.old is None else 'edited'}"
        if self.new is None:
            return f"{self.what}: removed (was {self.old!r})"
        return f"{self.what}: {self.old!r} -> {self.new!r}"


@dataclass(frozen=True)
class PlannedStage:
    """What would become of a stage."""

    name: str
    task: str
    inputs: dict[str, str]
    state: str  # "cached" | "run" | "effect"
    fingerprint: str | None
    because: tuple[Change, ...] = field(default=())
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "because": [asdict(change) for change in self.because]}


def plan(pipeline: BoundPipeline, runner: StageRunner) -> list[PlannedStage]:
    """The stages in the order in which they can run, each with what would become of it."""
    planned: list[PlannedStage] = []
    known: dict[str, dict[str, InputRef]] = {}  # references to outputs, of cached stages
    for stage in pipeline.stages.values():
        try:
            planned.append(_plan_stage(stage, runner, known))
        except PermanentError as error:  # a source that is not there, or not there yet
            links = {a: f"{link.stage}.{link.output}" for a, link in stage.inputs.items()}
            note = str(error)
            planned.append(PlannedStage(stage.name, stage.spec.name, links, "run", None, (), note))
    return planned


def _plan_stage(
    stage: BoundStage, runner: StageRunner, known: dict[str, dict[str, InputRef]]
) -> PlannedStage:
    inputs = {
        argument: known[link.stage][link.output]
        for argument, link in stage.inputs.items()
        if link.stage in known
    }
    links = {argument: f"{link.stage}.{link.output}" for argument, link in stage.inputs.items()}
    waits = sorted({link.stage for link in stage.inputs.values() if link.stage not in known})
    if stage.spec.effect:
        return PlannedStage(stage.name, stage.spec.name, links, "effect", None)
    if not waits:
        identity, manifest = runner.find(stage, inputs)
        if manifest:
            known[stage.name] = references(manifest)
            return PlannedStage(stage.name, stage.spec.name, links, "cached", identity.fingerprint)
    changes, note = _why(stage, runner, inputs, waits)
    return PlannedStage(stage.name, stage.spec.name, links, "run", None, changes, note)


def _why(
    stage: BoundStage, runner: StageRunner, inputs: dict[str, InputRef], waits: list[str]
) -> tuple[tuple[Change, ...], str]:
    before = latest(runner.store, runner.pipeline, stage.name)
    after = f"after {', '.join(waits)}" if waits else ""
    if before is None:
        return (), "; ".join(filter(None, ["never made", after]))
    now = Identity(
        task=stage.spec.name,
        params=_plain(stage),
        # An input that is yet to be made is not compared; the note names its stage.
        inputs={**before.identity.inputs, **{a: ref.digest for a, ref in inputs.items()}},
        sources=tuple((s.name, s.size, s.identity) for s in runner.sources(stage)),
        versions=versions_of(stage.spec.versions),
        code=code_digests([stage.spec.module, *stage.params.modules()]),
    )
    changes = tuple(differences(before.identity, now))
    if not changes and not waits:
        return (), "its outputs are incomplete"
    return changes, after


def differences(old: Identity, new: Identity) -> Iterator[Change]:
    """Field by field, what differs between two identities."""
    yield from _compare("task", old.task, new.task)
    yield from _compare("params", old.params, new.params)
    yield from _compare("input", old.inputs, new.inputs)
    before = {name: f"{size} bytes, {identity}" for name, size, identity in old.sources}
    after = {name: f"{size} bytes, {identity}" for name, size, identity in new.sources}
    yield from _compare("source", before, after)
    yield from _compare("version", old.versions, new.versions)
    files = [{_file(module): d for module, d in code.items()} for code in (old.code, new.code)]
    for name in sorted({*files[0], *files[1]}):
        if files[0].get(name) != files[1].get(name):
            yield Change(f"code {name}", files[0].get(name), files[1].get(name))


def _compare(what: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        separator = "." if what.startswith("params") else " "
        for key in sorted({*old, *new}):
            yield from _compare(f"{what}{separator}{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _compare(f"{what}[{index}]", one, other)
    elif old != new:
        yield Change(what, old, new)


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _plain(stage: BoundStage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(canonical(stage.params.identity()))
    return found
