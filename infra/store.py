"""The artifact store: bytes by their sha256, manifests by their own hash, pointers to them.

    blobs/ab/<sha256>             the bytes of a unit; written once, by anybody, always the same
    memo/<key>.json               what one call of a stage's function on one unit gave
    manifests/<provenance>.json   how outputs were made; the name is the hash of the text
    fingerprints/<fingerprint>    the manifest that answers a fingerprint: the mark of completion
    pipelines/<name>/<stage>      the manifest that a pipeline's stage had last, and the one before
    partial/<fingerprint>/…       leases, and what an unfinished attempt may resume from

Any fsspec URL will do. Blobs are addressed by content, so a second attempt that writes one writes
the same bytes, and a finished unit costs nothing to keep: no prefix has to be moved on publication.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from infra.errors import DamagedUnit
from schemas.artifact import Unit

_CHUNK = 1 << 20


def hash_file(path: Path) -> tuple[str, int]:
    """sha256 (hex) and size in bytes of a file."""
    hasher, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return hasher.hexdigest(), size


class Store:
    """Blobs, manifests and pointers under one fsspec URL; credentials come from the environment."""

    def __init__(self, url: str) -> None:
        local = "://" not in url
        self.url = str(Path(url).absolute()) if local else url.rstrip("/")
        self.filesystem, self.root = fsspec.core.url_to_fs(self.url)
        self.is_local = self.filesystem.protocol in (("file", "local"), "file")

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.url,)

    def local_folders(self) -> tuple[Path, ...]:
        """The folder that it is, if it is one of this machine."""
        return (Path(self.root),) if self.is_local else ()

    def path(self, relative: str) -> str:
        """The address of an entry within the file system."""
        return f"{self.root}/{relative}"

    # Blobs

    def put(self, path: Path, name: str, records: int | None = None) -> Unit:
        """Store a local file as a unit; storing the same bytes again costs one hash."""
        sha256, size = hash_file(path)
        unit = Unit(name=name, sha256=sha256, size=size, records=records)
        if not self.has(unit):
            self._write_file(path, self.blob(sha256))
        return unit

    def blob(self, sha256: str) -> str:
        """Relative address of the bytes with this hash."""
        return f"blobs/{sha256[:2]}/{sha256}"

    def has(self, unit: Unit) -> bool:
        """Whether bytes of the right size lie at the unit's address (not whether they hash)."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.invalidate_cache(self.path(f"blobs/{unit.sha256[:2]}"))
            return bool(self.filesystem.size(self.path(self.blob(unit.sha256))) == unit.size)
        return False

    def fetch(self, unit: Unit, folder: Path) -> Path:
        """Give a local file with the unit's bytes, hash-checked, in `folder`; never write to it.

        Raises:
            DamagedUnit: if the bytes are missing or altered.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{unit.sha256[:16]}-{unit.name}"
        if not target.exists():
            partial = target.with_name(f".{uuid.uuid4().hex}")
            self._read_file(self.blob(unit.sha256), partial, unit)
            partial.rename(target)
        self._check(unit, target)
        return target

    def check(self, unit: Unit) -> str | None:
        """Hash the stored bytes; the problem in words, or None."""
        hasher, size = hashlib.sha256(), 0
        try:
            with self.filesystem.open(self.path(self.blob(unit.sha256)), "rb") as file:
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return "missing"
        return _problem(unit, hasher.hexdigest(), size)

    def discard(self, sha256: str) -> None:
        """Remove damaged bytes, so that they are made again."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.path(self.blob(sha256)))

    def _check(self, unit: Unit, path: Path) -> None:
        problem = _problem(unit, *hash_file(path))
        if problem:
            path.unlink()
            raise DamagedUnit(unit.sha256, unit.name, problem)

    def _read_file(self, relative: str, target: Path, unit: Unit) -> None:
        try:
            if self.is_local:
                _link_or_copy(Path(self.path(relative)), target)
            else:
                self.filesystem.get_file(self.path(relative), str(target))
        except FileNotFoundError as error:
            raise DamagedUnit(unit.sha256, unit.name, "missing") from error

    def _write_file(self, path: Path, relative: str) -> None:
        if not self.is_local:
            self.filesystem.put_file(str(path), self.path(relative))
            return
        target = Path(self.path(relative))
        with _replacing(target) as partial:
            shutil.copyfile(path, partial)
            partial.chmod(0o444)

    # Small texts

    def read(self, relative: str) -> Any | None:
        """The JSON of an entry, or None if there is none."""
        try:
            return json.loads(self.filesystem.cat_file(self.path(relative)))
        except FileNotFoundError:
            return None

    def write(self, relative: str, value: Any) -> None:
        """Write an entry as JSON, whole or not at all."""
        text = json.dumps(value, sort_keys=True, indent=1).encode()
        if not self.is_local:
            self.filesystem.pipe_file(self.path(relative), text)
            return
        with _replacing(Path(self.path(relative))) as partial:
            partial.write_bytes(text)

    def create(self, relative: str, value: Any) -> bool:
        """Write an entry only if none is there, in one step; False if one was."""
        text = json.dumps(value, sort_keys=True, indent=1).encode()
        try:
            if self.is_local:
                _create_file(Path(self.path(relative)), text)
            else:
                self.filesystem.pipe_file(self.path(relative), text, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, relative: str) -> None:
        """Remove an entry or a folder, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(self.path(relative), recursive=True)

    def names(self, relative: str) -> list[str]:
        """Names of the entries in a folder, sorted; none if there is no folder.

        What is still being written, or was when a writer was killed, is no entry.
        """
        try:
            self.filesystem.invalidate_cache()
            found = self.filesystem.ls(self.path(relative), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)
        return sorted(name for name in names if name and not name.startswith("."))


def _problem(unit: Unit, sha256: str, size: int) -> str | None:
    if size != unit.size:
        return f"{size} bytes instead of {unit.size}"
    return None if sha256 == unit.sha256 else "its bytes do not have the sha256 it is stored under"


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary neighbour of `target` that takes its place, whole and on disk, at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        _sync(partial)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _create_file(target: Path, text: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        partial.write_bytes(text)
        _sync(partial)
        os.link(partial, target)  # fails if it exists, and never shows half a file
    finally:
        partial.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another device, or a file system without links
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
