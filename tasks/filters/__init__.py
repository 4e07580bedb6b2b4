"""Filters of pairs, one file each; a declaration names them by module.

A module `tasks/filters/NAME.py` is a filter when it has a parameter model `Params` and a class
`Filter` made from it, with a method `judge` that looks at a pair's row before anything is fetched
(`tasks.filter_captions`), or `look` that looks at its picture (`tasks.filter_images`). A new filter
is one new file; nothing else changes.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from schemas.base import Frozen
from schemas.records import DropReason

FilterSpec = dict[str, dict[str, Any]]  # {name: parameters}, one entry
Look = Literal["caption", "picture"]


class Objection(NamedTuple):
    """Why a filter does not want a pair; `detail` is what was measured, for a person."""

    reason: DropReason
    detail: str


class FilterParams(Frozen):
    """Parameters of a filter, as declared under its name."""


def filter_modules(specs: Iterable[FilterSpec]) -> tuple[str, ...]:
    """The modules that a declaration chooses; they are part of a stage's code."""
    return tuple(f"{__name__}.{name}" for spec in specs for name in spec)


def check_specs(specs: tuple[FilterSpec, ...], look: Look) -> tuple[FilterSpec, ...]:
    """The specs with every parameter written out, so that a default given is a default left out.

    Raises:
        ValueError: naming the filter or parameter that does not exist, and the nearest that does.
    """
    return tuple({_name(spec): _params(spec, look).model_dump(mode="json")} for spec in specs)


def build_filter(spec: FilterSpec) -> Any:
    """The filter that a spec names, with its parameters.

    Raises:
        ValueError: as `check_specs`.
    """
    name = _name(spec)
    module = _module(name)
    return module.Filter(module.Params(**spec[name]))


def _name(spec: FilterSpec) -> str:
    if len(spec) != 1:
        raise ValueError(f"a filter is written {{name: {{parameter: value}}}}, not {spec!r}")
    return next(iter(spec))


def _params(spec: FilterSpec, look: Look) -> FilterParams:
    name = _name(spec)
    module = _module(name)
    looks_at = "caption" if hasattr(module.Filter, "judge") else "picture"
    if look != looks_at:
        raise ValueError(f"filter {name!r} looks at the {looks_at}, this stage at the {look}")
    fields = module.Params.model_fields
    unknown = sorted(set(spec[name]) - set(fields))
    if unknown:
        raise ValueError(
            f"filter {name!r} has no parameter {unknown[0]!r}{_nearest(unknown[0], fields)}"
        )
    params: FilterParams = module.Params(**spec[name])
    return params


def _module(name: str) -> Any:
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise ValueError(f"there is no filter {name!r}{_nearest(name, known)}")
    return importlib.import_module(f"{__name__}.{name}")


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"


def as_specs(value: Any) -> Any:
    """`language` and `{language: null}` in YAML mean `{language: {}}`; other values as they are."""
    return tuple(map(_as_spec, value)) if isinstance(value, list | tuple) else value


def _as_spec(value: Any) -> Any:
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, Mapping):
        return {name: params or {} for name, params in value.items()}
    return value
