"""Lists of entries that filters read from files outside the pipeline, an entry a line.

Empty lines and what follows a `#` at the start of a line or after a space are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.work import Work
from schemas.artifact import Unit
from schemas.stage import Source
from tasks.filters import FilterParams

_COMMENT = re.compile(r"(?:^|\s)#.*")


class Listing(FilterParams):
    """Parameters of a filter whose entries are declared in its other field, or stand in files.

    Attributes:
        files: paths, globs or URLs of lists, an entry a line.
    """

    files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if not any(dict(self).values()):
            name = next(one for one in type(self).model_fields if one != "files")
            raise ValueError(f"give {name}, or files that list them")
        return self

    def sources(self) -> tuple[str, ...]:
        """The lists."""
        return self.files


def prepare_list(
    params: Listing, parts: Sequence[Unit], normal: Callable[[str], str], work: Work
) -> tuple[Unit, ...]:
    """For each part the same unit: the files' entries in their normal form, each once, sorted.

    None at all if no files are declared.

    Raises:
        PermanentError: if a file is missing, is not UTF-8, or has changed since the run began.
    """
    if not params.files:
        return ()
    entries: set[str] = set()
    for source in pinned_sources(params.files, work):
        path = work.fetch(source)
        entries |= set(map(normal, _entries(path, source.uri)))
    target = work.scratch / "list.txt"
    target.write_text("".join(f"{entry}\n" for entry in sorted(entries)), encoding="utf-8")
    return (work.add(target, target.name, len(entries)),) * len(parts)


def pinned_sources(files: tuple[str, ...], work: Work) -> list[Source]:
    """The files that declared paths, globs and URLs name, as they were when the run began."""
    pinned = {source.uri: source for source in work.sources}
    return [pinned.get(one.uri, one) for one in resolve_sources(files, work.environment)]


def read_list(path: Path | None) -> list[str]:
    """The entries of a prepared list, if there is one."""
    return path.read_text(encoding="utf-8").splitlines() if path else []


def _entries(path: Path, name: str) -> Iterable[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PermanentError(f"files: {name} is not UTF-8 text: {error}") from error
    found = (_COMMENT.sub("", line).strip() for line in lines)
    return [entry for entry in found if entry]
