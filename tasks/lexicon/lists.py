"""Lists of entries that filters read from files outside the pipeline, an entry a line.

Empty lines and what follows a `#` at the start of a line or after a space are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.work import Work
from schemas.artifact import Unit
from schemas.stage import Source

_COMMENT = re.compile(r"(?:^|\s)#.*")


def prepare_list(files: tuple[str, ...], normal: Callable[[str], str], work: Work) -> Unit:
    """One unit with the entries of all files in their normal form, each once, sorted.

    Raises:
        PermanentError: if a file is missing, is not UTF-8, or has changed since the run began.
    """
    entries: set[str] = set()
    for source in pinned_sources(files, work):
        path = work.fetch(source)
        entries |= set(map(normal, _entries(path, source.uri)))
    target = work.scratch / "list.txt"
    target.write_text("".join(f"{entry}\n" for entry in sorted(entries)), encoding="utf-8")
    return work.add(target, target.name, len(entries))


def pinned_sources(files: tuple[str, ...], work: Work) -> list[Source]:
    """The files that declared paths, globs and URLs name, as they were when the run began."""
    pinned = {source.uri: source for source in work.sources}
    return [pinned.get(one.uri, one) for one in resolve_sources(files, work.environment)]


def read_list(path: Path) -> list[str]:
    """The entries of a prepared list."""
    return path.read_text(encoding="utf-8").splitlines()


def _entries(path: Path, name: str) -> Iterable[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PermanentError(f"files: {name} is not UTF-8 text: {error}") from error
    found = (_COMMENT.sub("", line).strip() for line in lines)
    return [entry for entry in found if entry]
