"""Bind a declaration to the stages: functions found, parameters read, kinds and order checked.

Everything that can be known to be wrong is refused here, before anything runs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

import tasks
from flows.months import months_of, spread
from schemas.pipeline import (
    DeclarationError,
    Located,
    Month,
    Pipeline,
    StageDeclaration,
    Web,
    nearest,
    read_declaration,
    validate,
)
from schemas.stage import StageParams, StageSpec

BUNDLED = Path(__file__).parent / "pipelines"


@dataclass(frozen=True)
class Link:
    """Where an input comes from: a named output of another stage."""

    stage: str
    output: str


@dataclass(frozen=True)
class BoundStage:
    """A declared stage with its function and checked parameters."""

    name: str
    spec: StageSpec
    params: StageParams
    inputs: Mapping[str, Link]


@dataclass(frozen=True)
class BoundPipeline:
    """A checked declaration, its stages in an order in which they can run."""

    name: str
    file: str
    web: Web | None
    stages: Mapping[str, BoundStage]
    declaration: Mapping[str, Any]  # the values as written, overrides applied
    month: Month | None = None  # the last one that counts, where months are declared

    def until(self, *last: str) -> BoundPipeline:
        """Only the given stages and what they need; all of them if none is given.

        Raises:
            DeclarationError: if there is no such stage.
        """
        if not last:
            return self
        for name in last:
            if name not in self.stages:
                message = f"no stage {name!r}; {nearest(name, self.stages)}"
                raise DeclarationError(f"{self.file}: {message}")
        needed = set().union(*(self._needed(name) for name in last))
        kept = {name: one for name, one in self.stages.items() if name in needed}
        return BoundPipeline(self.name, self.file, self.web, kept, self.declaration, self.month)

    def _needed(self, last: str) -> set[str]:
        links = self.stages[last].inputs.values()
        return {last}.union(*(self._needed(link.stage) for link in links))


def load_pipeline(
    name: str,
    overrides: Sequence[str] = (),
    month: Month | None = None,
    now: datetime | None = None,
) -> BoundPipeline:
    """Read, override and check a declaration.

    Args:
        name: a path, or the name of a bundled declaration (`shapes`).
        overrides: `STAGE.PARAM=VALUE` each, VALUE written as in YAML.
        month: the last one that counts, for a declaration with months; by default that of `now`.

    Raises:
        DeclarationError: naming file, line, key and what would be right.
    """
    located = read_declaration(find_declaration(name))
    for text in overrides:
        _override(located, text)
    return bind(located, month, now)


def find_declaration(name: str) -> Path:
    """The file of a declaration given by path or by bundled name."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    path = BUNDLED / f"{name}.yaml"
    if not path.is_file():
        bundled = [one.stem for one in BUNDLED.glob("*.yaml")]
        raise DeclarationError(f"no bundled pipeline {name!r}; {nearest(name, bundled)}")
    return path


def bind(
    located: Located, month: Month | None = None, now: datetime | None = None
) -> BoundPipeline:
    """Bind the values of a file to the stages."""
    declared: Pipeline = validate(Pipeline, located.values, located)
    months = months_of(declared, month, now, located)
    specs = {
        name: _find_stage(stage.task, located, ("stages", name, "task"))
        for name, stage in declared.stages.items()
    }
    bound = {
        name: _bind_stage(name, stage, specs, months, located)
        for name, stage in declared.stages.items()
    }
    order = _order(bound, located)
    return BoundPipeline(
        declared.name, located.file, declared.web, {name: bound[name] for name in order},
        located.values, months[-1] if months else None,
    )  # fmt: skip


def task_modules() -> dict[str, Path]:
    """Files of the modules in `tasks/`, by name; a stage stands in the module of its name."""
    found = {}
    for module in pkgutil.iter_modules(tasks.__path__):
        folder = getattr(module.module_finder, "path", None)
        if folder and not module.ispkg:
            found[module.name] = Path(folder) / f"{module.name}.py"
    return found


def _find_stage(task: str, located: Located, path: tuple[str, ...]) -> StageSpec:
    if task in task_modules():
        module = importlib.import_module(f"tasks.{task}")
        spec = getattr(getattr(module, task, None), "spec", None)
        if isinstance(spec, StageSpec):
            return spec
    raise located.error(path, f"there is no stage function {task!r}; {nearest(task, _stages())}")


def _stages() -> list[str]:
    # Told from the text, since importing every stage to word an error would take seconds.
    modules = task_modules()
    return [name for name, file in modules.items() if f"def {name}(" in file.read_text()]


def _bind_stage(
    name: str, declared: StageDeclaration, specs: Mapping[str, StageSpec],
    months: Sequence[Month], located: Located,
) -> BoundStage:  # fmt: skip
    spec = specs[name]
    path = ("stages", name)
    values = spread(declared.params, months, located, (*path, "params"))
    params = validate(spec.params, values, located, (*path, "params"))
    for argument in declared.inputs:
        if argument not in spec.inputs:
            message = f"stage function {spec.name} has no such input"
            message += f"; {nearest(argument, spec.inputs)}"
            raise located.error((*path, "inputs", argument), message)
    for argument in set(spec.inputs) - spec.optional - set(declared.inputs):
        kind = spec.inputs[argument].kind
        raise located.error((*path, "inputs"), f"input {argument!r} ({kind}) is missing")
    links = {
        argument: _link(text, spec, argument, specs, located, (*path, "inputs", argument))
        for argument, text in declared.inputs.items()
    }
    return BoundStage(name, spec, params, links)


def _link(
    text: str, spec: StageSpec, argument: str, specs: Mapping[str, StageSpec],
    located: Located, path: tuple[str, ...],
) -> Link:  # fmt: skip
    stage, _, output = text.partition(".")
    if stage not in specs:
        raise located.error(path, f"there is no stage {stage!r}; {nearest(stage, specs)}")
    outputs, wanted = specs[stage].outputs, spec.inputs[argument]
    if output and output not in outputs:
        raise located.error(path, f"{stage} has no output {output!r}; {nearest(output, outputs)}")
    fitting = [name for name, kind in outputs.items() if issubclass(kind, wanted)]
    if output and output not in fitting:
        kind = outputs[output].kind
        raise located.error(path, f"{text} is a {kind}, but {argument} must be a {wanted.kind}")
    if not output and len(fitting) != 1:
        found = ", ".join(f"{stage}.{name} ({kind.kind})" for name, kind in outputs.items())
        raise located.error(
            path, f"{argument} must be a {wanted.kind}; {stage} has: {found or 'no output'}"
        )
    return Link(stage, output or fitting[0])


def _order(bound: Mapping[str, BoundStage], located: Located) -> list[str]:
    # Declaration order is kept among stages that do not depend on each other.
    graph = {
        name: sorted({link.stage for link in stage.inputs.values()})
        for name, stage in bound.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = error.args[1]
        path = ("stages", cycle[0], "inputs")
        raise located.error(path, f"the stages form a cycle: {' -> '.join(cycle)}") from error


def _override(located: Located, text: str) -> None:
    """Apply `STAGE.PARAM=VALUE` to the values, to be validated like the file."""
    key, equals, value = text.partition("=")
    stage, *path = key.strip().split(".")
    if not equals or not path:
        raise DeclarationError(f"--set {text!r}: write it as STAGE.PARAM=VALUE")
    stages = located.values.get("stages") if isinstance(located.values, dict) else None
    if not isinstance(stages, dict) or stage not in stages:
        known = stages if isinstance(stages, dict) else {}
        raise DeclarationError(f"--set {text!r}: no stage {stage!r}; {nearest(stage, known)}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise DeclarationError(f"--set {text!r}: the value is not YAML") from error
    target = stages[stage].setdefault("params", {})
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise DeclarationError(f"--set {text!r}: {part!r} has no parameters of its own")
    target[path[-1]] = parsed
