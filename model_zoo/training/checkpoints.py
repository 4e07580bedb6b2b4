"""Checkpoints: folders `step-0000100`, whole or absent, their hashes checked before use.

A checkpoint is written under another name, flushed to disk, and renamed; its list of hashes is
written last. The engines' own files are pickles, so nothing in a folder is opened before the hash
of every file in it has been found right: a truncated or altered checkpoint is set aside, that is
said, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

HASHES = "SHA256SUMS"
KEEP = 2


def begin(folder: Path, step: int) -> None:
    """Make an empty folder to write the checkpoint of a step into."""
    path = unfinished(folder, step)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def publish(folder: Path, step: int) -> None:
    """Make what was written the checkpoint of a step, and drop all but the newest two."""
    written, final = unfinished(folder, step), finished(folder, step)
    lines = [f"{_sha256(path)}  {path.relative_to(written)}\n" for path in _files(written)]
    for path in _files(written):
        _flush(path)
    (written / HASHES).write_text("".join(lines))
    _flush(written / HASHES)
    _flush(written)
    if final.exists():  # made before a restart from an earlier step
        shutil.rmtree(final)
    written.rename(final)
    _flush(folder)
    for old in _checkpoints(folder)[KEEP:]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest sound checkpoint; damaged ones above it are renamed and named on stderr."""
    for left in folder.glob("unfinished-*"):
        shutil.rmtree(left)
    for checkpoint in _checkpoints(folder):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
        print(f"checkpoint {checkpoint.name} is refused: {damage}; see {aside}", file=sys.stderr)
    return None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, in words; None if nothing is."""
    hashes = checkpoint / HASHES
    if not hashes.is_file():
        return f"it has no {HASHES}"
    lines = hashes.read_text(errors="replace").removesuffix("\n").split("\n")
    listed = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    present = {str(path.relative_to(checkpoint)): path for path in _files(checkpoint)}
    present.pop(HASHES)
    if listed.keys() != present.keys():
        return f"{', '.join(sorted(listed.keys() ^ present.keys()))}: not both listed and there"
    for name, path in present.items():
        if _sha256(path) != listed[name]:
            return f"{name} is not what was written"
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are whole, oldest first; their hashes are not looked at."""
    return [path for path in reversed(_checkpoints(folder)) if (path / HASHES).is_file()]


def step_of(checkpoint: Path) -> int:
    """The number of updates that a checkpoint holds."""
    return int(checkpoint.name.removeprefix("step-"))


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written."""
    return folder / f"unfinished-{step:07d}"


def finished(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, once it is one."""
    return folder / f"step-{step:07d}"


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=step_of, reverse=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
