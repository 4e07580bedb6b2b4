"""Sources: files outside the pipeline, resolved before anything runs and pinned to what they were.

A declared source is a path, a glob or an fsspec URL. A local file is known by the sha256 of its
bytes, a remote one by size and ETag (or modification time), so that a file replaced under the same
name is noticed.
"""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path
from typing import Any

import fsspec

from infra.environment import Environment
from infra.errors import PermanentError
from infra.store import hash_file
from schemas.stage import Source


def resolve_sources(declared: tuple[str, ...], environment: Environment) -> tuple[Source, ...]:
    """Every file that the declared paths, globs and URLs name, in order, each once.

    Raises:
        PermanentError: if one of them names nothing.
    """
    found: dict[str, Source] = {}
    for text in declared:
        resolved = environment.local(text)
        sources = _remote(resolved) if "://" in resolved else _local(resolved)
        if not sources:
            raise PermanentError(f"the source {text!r} is missing: nothing is there")
        found.update({source.uri: source for source in sources})
    return tuple(found.values())


def fetch_source(source: Source, folder: Path) -> Path:
    """A local file with the source's bytes; local ones in place, after a check that they are same.

    Raises:
        PermanentError: if the file is gone or is not the one that was resolved.
    """
    if "://" not in source.uri:
        path = Path(source.uri)
        if not path.exists() or f"sha256:{hash_file(path)[0]}" != source.identity:
            raise PermanentError(f"the source {source.uri} changed after the run began; run again")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(source.uri.encode()).hexdigest()[:16]}-{source.name}"
    filesystem, path_there = fsspec.core.url_to_fs(source.uri)
    filesystem.get_file(path_there, str(target))
    if target.stat().st_size != source.size:
        raise PermanentError(f"the source {source.uri} changed after the run began; run again")
    return target


def _local(text: str) -> list[Source]:
    paths = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else [text]
    return [_local_source(path) for path in paths if os.path.isfile(path)]


def _local_source(path: str) -> Source:
    sha256, size = hash_file(Path(path))
    return Source(
        uri=os.path.abspath(path), name=_name(path), size=size, identity=f"sha256:{sha256}"
    )


def _remote(url: str) -> list[Source]:
    filesystem, path = fsspec.core.url_to_fs(url)
    scheme = url.split("://", 1)[0]
    paths = sorted(filesystem.glob(path)) if glob.has_magic(path) else [path]
    sources = []
    for one in paths:
        try:
            info = filesystem.info(one)
        except FileNotFoundError:
            continue
        uri = one if "://" in one else f"{scheme}://{one}"
        size = int(info.get("size") or 0)
        sources.append(Source(uri=uri, name=_name(uri), size=size, identity=_mark(info)))
    return sources


def _mark(info: dict[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return f"etag:{info.get('size')}:{str(tag).strip(chr(34))}"
    modified = info.get("LastModified") or info.get("mtime") or info.get("created") or ""
    return f"modified:{info.get('size')}:{modified}"


def _name(path: str) -> str:
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in name).lstrip(".+-") or "source"
