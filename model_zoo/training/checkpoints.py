"""Checkpoints: folders `step-0000100`, whole or absent, their hashes checked before use.

A checkpoint is written under another name, flushed to disk, and renamed; its list of hashes is
written last. Nothing in a folder is opened before the hash of every file in it has been found
right: a truncated or altered checkpoint is set aside, that is said, and the one before it is used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HASHES = "SHA256SUMS"
STATE = "state.json"
FILES = "files"  # in the state: names of the files that all processes together were to write
KEEP = 2  # newest checkpoints that are kept where nothing else is declared
_SEAL = ".sha256"


def begin(folder: Path, step: int) -> None:
    """Make an empty folder to write the checkpoint of a step into."""
    path = unfinished(folder, step)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def publish(folder: Path, step: int, keep: int = KEEP, keep_best: int = 0) -> None:
    """Make what was written the checkpoint of a step, and drop those that are not to be kept.

    Args:
        folder: of checkpoints.
        step: whose it is.
        keep: newest ones to keep.
        keep_best: ones with the lowest `loss` in their state to keep besides.

    Raises:
        FileNotFoundError: if a file is missing that its state lists.
    """
    written, final = unfinished(folder, step), finished(folder, step)
    missing = _missing(written)
    if missing:  # written on another machine and not to be seen here, say
        raise FileNotFoundError(f"checkpoint of update {step}: {written} has no {missing}")
    lines = [f"{_sealed(path)}  {path.relative_to(written)}\n" for path in _unsealed(written)]
    for note in written.rglob(f"*{_SEAL}"):
        note.unlink()
    (written / HASHES).write_text("".join(lines))
    _flush(written / HASHES)
    _flush(written)
    if final.exists():  # made before a restart from an earlier step
        shutil.rmtree(final)
    written.rename(final)
    _flush(folder)
    older = _checkpoints(folder)[keep:]
    for old in sorted(older, key=_loss)[keep_best:]:
        shutil.rmtree(old)


def seal(path: Path) -> None:
    """Flush a file that was written and note its hash, to spare `publish` both."""
    _flush(path)
    path.with_name(path.name + _SEAL).write_text(_sha256(path))


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
    missing = _missing(checkpoint)
    return f"it has no {missing}" if missing else None


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are whole, oldest first; their hashes are not looked at."""
    return [path for path in reversed(_checkpoints(folder)) if (path / HASHES).is_file()]


def step_of(checkpoint: Path) -> int:
    """The number of updates that a checkpoint holds."""
    return int(checkpoint.name.removeprefix("step-"))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, besides its shards."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
    return state


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written."""
    return folder / f"unfinished-{step:07d}"


def finished(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, once it is one."""
    return folder / f"step-{step:07d}"


@contextmanager
def explaining_full_disk(folder: Path, step: int) -> Iterator[None]:
    """Say what to do where a checkpoint does not fit on the disk.

    Raises:
        ValueError: with the step from which the training will go on.
    """
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        shutil.rmtree(unfinished(folder, step), ignore_errors=True)
        sound = complete_checkpoints(folder)
        last = f"update {step_of(sound[-1])}" if sound else "the beginning"
        free = shutil.disk_usage(folder).free / 1e9
        raise ValueError(
            f"checkpoint of update {step}: the disk is full ({free:.2f} GB free); free some and run"
            f" again: the training goes on from {last}"
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error)  # safetensors' own error


def _missing(folder: Path) -> str:
    """The files that a checkpoint's state lists and that are not there, in words."""
    state = read_state(folder) if (folder / STATE).exists() else {}
    return ", ".join(name for name in state.get(FILES, ()) if not (folder / name).is_file())


def _loss(checkpoint: Path) -> float:
    try:
        return float(read_state(checkpoint)["loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=step_of, reverse=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unsealed(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.suffix != _SEAL]


def _sealed(path: Path) -> str:
    note = path.with_name(path.name + _SEAL)
    if not note.exists():
        seal(path)
    return note.read_text()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
