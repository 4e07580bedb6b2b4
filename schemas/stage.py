"""A stage: a plain function with typed inputs, a parameter model and typed outputs.

The decorator only reads the signature and keeps what the runner needs to know; the function stays
callable by itself, so that a stage is tested without Prefect, MLflow, Dask or a cloud.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from schemas.artifact import Artifact
from schemas.base import Frozen

CRAWL = "{crawl}"
_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"


def operational(default: Any, **constraints: Any) -> Any:
    """A parameter that says how work is done, not what comes out: no part of the fingerprint."""
    return Field(default=default, json_schema_extra={"operational": True}, **constraints)


def later(**constraints: Any) -> Any:
    """A parameter that came after the others: no part of the fingerprint while it is None.

    What was made before it came is found again.
    """
    return Field(default=None, json_schema_extra={"later": True}, **constraints)


def _is_marked(info: FieldInfo, mark: str) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, Mapping) and bool(extra.get(mark))


class StageParams(Frozen):
    """Parameters of a stage, as declared under `params`."""

    def identity(self) -> dict[str, Any]:
        """The parameters that bear on the result, by name (nested models included)."""
        found: dict[str, Any] = _identity(self)
        return found

    def modules(self) -> tuple[str, ...]:
        """Modules that these parameters choose (`tasks.filters.min_size`), part of the code."""
        return ()

    def sources(self) -> tuple[str | Listing, ...]:
        """Paths, globs, URLs or listings that the stage reads from outside the pipeline."""
        return ()


def _identity(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_identity(item) for item in value)
    if not isinstance(value, Frozen):
        return value
    found = {}
    for name, info in type(value).model_fields.items():
        item = getattr(value, name)
        absent = item is None and _is_marked(info, "later")
        if not absent and not _is_marked(info, "operational"):
            found[name] = _identity(item)
    return found


class Listing(Frozen):
    """A file that lists the paths of others, one a line, and which of them are meant.

    With `crawls` it stands for one such file a crawl, of those that ended in a month: Common Crawl
    calls its crawls by year and week (`CC-MAIN-2026-38`), which no month tells.

    Attributes:
        listing: path or URL of the file, plain or gzip; `{crawl}` stands for the id of a crawl.
        prefix: what stands before every path; nothing outside it is read. May say `{crawl}`, too.
        start, stop: lines of each file, counted from 0, the last one not included.
        crawls: path or URL of the list of crawls (`infra.crawls`).
        month: in which, by UTC, the crawls ended.
    """

    listing: str = Field(min_length=1)
    prefix: str = Field(pattern=r".*/$")
    start: int = Field(default=0, ge=0)
    stop: int | None = Field(default=None, gt=0)
    crawls: str | None = later(min_length=1)
    month: str | None = later(pattern=_MONTH)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {
            "crawls": self.crawls is not None, "month": self.month is not None,
            f"{CRAWL} in listing": CRAWL in self.listing,
        }  # fmt: skip
        missing = [name for name, there in given.items() if not there]
        if missing and (CRAWL in self.prefix or len(missing) < len(given)):
            raise ValueError(f"{', '.join(given)} go together; missing: {', '.join(missing)}")
        return self

    @property
    def label(self) -> str:
        """What it is called in messages and in `Source.declared`: one name a month, as declared.

        Which crawl a file is of stands in its URI.
        """
        lines = f"{self.listing}[{self.start}:{'' if self.stop is None else self.stop}]"
        return lines if self.month is None else f"{lines} of {self.month}"

    def of(self, crawl: str) -> Listing:
        """The listing of one crawl."""
        listing, prefix = (text.replace(CRAWL, crawl) for text in (self.listing, self.prefix))
        return Listing(listing=listing, prefix=prefix, start=self.start, stop=self.stop)


class Source(Frozen):
    """A file outside the pipeline that a stage reads, pinned to what it was when resolved."""

    uri: str
    name: str
    size: int
    identity: str  # "sha256:…" for local files, "etag:…" or "modified:…" for remote ones
    declared: str = ""  # the path, glob or URL that named it, or the label of a listing


@dataclass(frozen=True)
class Resources:
    """What one run of a stage takes; the runner admits no more than the machine has."""

    cores: int = 1
    memory_gb: float = 1.0
    gpus: int = 0


@dataclass(frozen=True)
class StageSpec:
    """What the runner knows about a stage function, read from its signature and decorator."""

    name: str
    function: Callable[..., Any]
    params: type[StageParams]
    inputs: Mapping[str, type[Artifact]]
    optional: frozenset[str]
    outputs: Mapping[str, type[Artifact]]
    resources: Resources
    retries: int
    retry_delay: float
    versions: tuple[str, ...]
    effect: bool

    SINGLE: ClassVar[str] = "output"  # name of the output of a stage that has only one

    @property
    def module(self) -> str:
        """Module of the stage function (`tasks.filter_images`)."""
        return self.function.__module__

    def gather(self, result: Any) -> dict[str, Artifact]:
        """The outputs that the function returned, by name.

        Raises:
            TypeError: if it returned something else than it declares.
        """
        if not self.outputs:
            return {}
        found = {self.SINGLE: result} if isinstance(result, Artifact) else result._asdict()
        for name, kind in self.outputs.items():
            if not isinstance(found.get(name), kind):
                raise TypeError(
                    f"stage {self.name} declares output {name}: {kind.__name__},"
                    f" but returned {type(found.get(name)).__name__}"
                )
        return dict(found)


def stage(
    *,
    cores: int = 1,
    memory_gb: float = 1.0,
    gpus: int = 0,
    retries: int = 2,
    retry_delay: float = 5.0,
    versions: tuple[str, ...] = (),
    effect: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a function as a stage; `function.spec` is then its `StageSpec`.

    Args:
        cores, memory_gb, gpus: what one run takes.
        retries: how often it is tried again, with back-off from `retry_delay` seconds.
        versions: distributions whose version bears on the result.
        effect: it changes the world outside (registers a model) and is never cached.

    Raises:
        TypeError: if the signature is not that of a stage.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        resources = Resources(cores, memory_gb, gpus)
        inputs, optional, params, outputs = _signature(function)
        function.spec = StageSpec(  # type: ignore[attr-defined]
            function.__name__, function, params, inputs, optional, outputs, resources,
            retries, retry_delay, versions, effect,
        )  # fmt: skip
        return function

    return declare


_Signature = tuple[
    dict[str, type[Artifact]], frozenset[str], type[StageParams], dict[str, type[Artifact]]
]


def _signature(function: Callable[..., Any]) -> _Signature:
    hints = typing.get_type_hints(function)
    result = hints.pop("return", None)
    hints.pop("work", None)
    params = hints.pop("params", None)
    if not (inspect.isclass(params) and issubclass(params, StageParams)):
        raise TypeError(f"stage {function.__name__}: `params` must be annotated with StageParams")
    inputs = {name: _artifact(function, name, hint) for name, hint in hints.items()}
    optional = frozenset(name for name, hint in hints.items() if _is_optional(hint))
    return inputs, optional, params, _outputs(function, result)


def _outputs(function: Callable[..., Any], result: Any) -> dict[str, type[Artifact]]:
    if result is type(None):
        return {}  # an effect
    if inspect.isclass(result) and issubclass(result, Artifact):
        return {StageSpec.SINGLE: result}
    if inspect.isclass(result) and hasattr(result, "_fields"):
        hints = typing.get_type_hints(result)
        return {name: _artifact(function, name, hints[name]) for name in result._fields}
    raise TypeError(f"stage {function.__name__}: returns an Artifact or a NamedTuple of them")


def _is_optional(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)


def _artifact(function: Callable[..., Any], name: str, hint: Any) -> type[Artifact]:
    chosen = [part for part in typing.get_args(hint) if part is not type(None)]
    found = chosen[0] if _is_optional(hint) and len(chosen) == 1 else hint
    if not (inspect.isclass(found) and issubclass(found, Artifact)):
        raise TypeError(f"stage {function.__name__}: {name} must be annotated with an Artifact")
    return found
