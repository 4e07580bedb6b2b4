"""Filters of pairs, one file each; a declaration names them by module.

A module `tasks/filters/NAME.py` is a filter when it has a parameter model `Params` and a class
`Filter` made from it, with a method `judge` that looks at a pair's row before anything is fetched
(`tasks.filter_captions`), or `look` that looks at its picture (`tasks.filter_images`). A new filter
is one new file; nothing else changes. It may have more:

- `Filter.measure`: the numbers that its bounds are held against, which a dry run writes down;
- `Filter.mask`: what may be kept of the caption of a pair that another filter drops;
- `Filter.judge_many`: the same verdicts as `judge`, where many pairs at once cost less;
- a function `prepare(params, parts, work)`, for what must be known before any pair is judged: how
  often a caption stands in the whole table, or what a list in a file says. It gives a unit for each
  part of the table, and `Filter` is then made from the parameters and that unit's file. A part
  whose unit is the same as last month is not judged again.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from infra.work import Work
from schemas.artifact import Unit
from schemas.base import Frozen
from schemas.records import DropReason

FilterSpec = dict[str, dict[str, Any]]  # {name: parameters}, one entry
Look = Literal["caption", "picture"]


class Objection(NamedTuple):
    """Why a filter does not want a pair; `detail` is what was measured, for a person."""

    reason: DropReason
    detail: str


class Change(NamedTuple):
    """Another caption for a pair that stays; `detail` says what was changed, for a person."""

    caption: str
    detail: str


class FilterParams(Frozen):
    """Parameters of a filter, as declared under its name."""

    def sources(self) -> tuple[str, ...]:
        """Paths, globs or URLs of files that the filter reads."""
        return ()


def filter_modules(specs: Iterable[FilterSpec]) -> tuple[str, ...]:
    """The modules that a declaration chooses; they are part of a stage's code."""
    return tuple(f"{__name__}.{name}" for spec in specs for name in spec)


def check_specs(specs: tuple[FilterSpec, ...], look: Look) -> tuple[FilterSpec, ...]:
    """The specs with every parameter written out, so that a default given is a default left out.

    Raises:
        ValueError: naming the filter or parameter that does not exist, and the nearest that does.
    """
    return tuple({_name(spec): _params(spec, look).model_dump(mode="json")} for spec in specs)


def build_filter(spec: FilterSpec, prepared: Path | None = None) -> Any:
    """The filter that a spec names, with its parameters and what it prepared for this part.

    Raises:
        ValueError: as `check_specs`.
    """
    name = _name(spec)
    module = _module(name)
    given = () if prepared is None else (prepared,)
    return module.Filter(module.Params(**spec[name]), *given)


def filter_sources(specs: Iterable[FilterSpec]) -> tuple[str, ...]:
    """The files that declared filters read, each once."""
    params = (_module(name).Params(**spec[name]) for spec in specs for name in spec)
    return tuple(dict.fromkeys(text for one in params for text in one.sources()))


def prepare_filters(
    specs: Iterable[FilterSpec], parts: tuple[Unit, ...], work: Work
) -> dict[int, tuple[Unit, ...]]:
    """By the place of a filter that prepares itself: what it prepared, a unit for each part."""
    found = {}
    for place, spec in enumerate(specs):
        module = _module(_name(spec))
        prepare = getattr(module, "prepare", None)
        units = prepare(module.Params(**spec[_name(spec)]), parts, work) if prepare else ()
        if units:
            found[place] = units
    return found


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
