"""A pipeline's declaration: a name, and stages with their function, inputs and parameters.

The YAML text is read into strict models; every error names file, line, key and what would be right.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from schemas.base import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Month = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
KeyPath = tuple[str | int, ...]


class StageDeclaration(Frozen):
    """One stage: which function, whose outputs it takes, with which parameters."""

    task: str
    inputs: dict[str, str] = Field(default_factory=dict)  # argument -> STAGE or STAGE.OUTPUT
    params: dict[str, Any] = Field(default_factory=dict)


class Web(Frozen):
    """A generated site on loopback that the pipeline collects from (`infra.demo_web`)."""

    variant: str
    seed: int = 0
    pages: int | None = Field(default=None, gt=0)
    font: str | None = None


class Pipeline(Frozen):
    """A declaration as it was written; `flows.declaration` binds it to the stages.

    Attributes:
        first_month: from which on `{month}` in a list of a stage's parameters stands for every
            month (`flows.months`).
    """

    name: Name
    description: str = ""
    first_month: Month | None = None
    web: Web | None = None
    stages: dict[Name, StageDeclaration] = Field(min_length=1)


class DeclarationError(ValueError):
    """A declaration that cannot be run; the text names file, line, key and what would be right."""


class Located:
    """The values of a YAML file, and the line that each key stands in."""

    def __init__(self, file: str, values: Any, lines: Mapping[KeyPath, int]) -> None:
        self.file = file
        self.values = values
        self._lines = lines

    def line(self, path: KeyPath) -> int:
        """Line (from 1) of a key, or of the nearest key above it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error(self, path: KeyPath, message: str) -> DeclarationError:
        """An error at a key."""
        key = ".".join(str(part) for part in path) or "the file"
        return DeclarationError(f"{self.file}:{self.line(path)}: {key}: {message}")


def read_declaration(path: Path) -> Located:
    """Read a YAML file with the lines of its keys; values are not looked at yet.

    Raises:
        DeclarationError: if there is no such file, or it is not YAML, or a key stands twice.
    """
    if not path.is_file():
        raise DeclarationError(f"{path}: there is no such file")
    return parse_declaration(path.read_text(encoding="utf-8"), str(path))


def parse_declaration(text: str, file: str) -> Located:
    """The same for a text; `file` is the name that errors give."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[KeyPath, int] = {}
        _note_lines(node, (), lines, file)
        return Located(file, yaml.safe_load(text), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise DeclarationError(f"{file}:{line}: this is not YAML: {problem}") from error


def validate(model: type[BaseModel], values: Any, located: Located, path: KeyPath = ()) -> Any:
    """Read values into a strict model.

    Raises:
        DeclarationError: naming the first wrong key, and the nearest valid word for an unknown one.
    """
    for place, value in _unknown_values(values, path):
        raise located.error(place, f"YAML reads {value!r} here; quote it if text is meant")
    try:
        # Through JSON, where strict still takes a list for a tuple, but no "3" or `yes` for 3.
        text = json.dumps(values if values is not None else {})
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        # A misspelt key is both unknown and missing; the first is what helps.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise located.error((*path, *first["loc"]), _explain(first, model)) from error


def _unknown_values(values: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """What YAML made of the text that JSON has no word for: dates, sets, binary."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _unknown_values(value, (*path, key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from _unknown_values(value, (*path, index))
    elif not isinstance(values, str | int | float | None):
        yield path, values


def nearest(word: str, valid: Iterable[str]) -> str:
    """Say which valid word was probably meant, and list them if none is near."""
    words = sorted(valid)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid are: {', '.join(words) or 'none'}"


def _explain(error: Any, model: type[BaseModel]) -> str:
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(location[-1]), _fields_at(model, location[:-1]))}"
    if error["type"] == "missing":
        return "this key is missing"
    return f"{error['msg']} (it is {error['input']!r})"


def _fields_at(model: Any, location: tuple[str | int, ...]) -> list[str]:
    """Field names of the model that stands at a place within another, as far as can be told."""
    for part in location:
        if not hasattr(model, "model_fields"):
            model = next(iter(_models_in(model)), None)
            continue
        info = model.model_fields.get(part)
        candidates = list(_models_in(info.annotation)) if info else []
        model = candidates[0] if candidates else model
    return list(getattr(model, "model_fields", {}))


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _note_lines(node: Any, path: KeyPath, lines: dict[KeyPath, int], file: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, key.value)
            line = key.start_mark.line + 1
            if here in lines:
                raise DeclarationError(f"{file}:{line}: {key.value}: this key stands twice")
            lines[here] = line
            _note_lines(value, here, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _note_lines(value, (*path, index), lines, file)
