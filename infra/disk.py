"""What there is to know about disks that fill up: how it shows, and how it is told to a person."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from infra.errors import DamagedUnit, DiskFull, PermanentError

# Not every writer says it by the error's number: safetensors, SQLite, numpy, and programs by what
# they leave in their logs.
_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")

_REST = 1 << 16  # bytes


@contextmanager
def explaining_full_disk(*folders: Path) -> Iterator[None]:
    """Say which disk is full, where something below `folders` cannot be written.

    Raises:
        DiskFull: with the space that is free for each of the folders.
    """
    try:
        yield
    except (DamagedUnit, DiskFull, PermanentError):
        raise
    except Exception as error:
        # A program whose log lies on the disk that is full cannot say why it ended.
        if not is_full_disk(error) and all(map(has_room, folders)):
            raise
        raise DiskFull(
            f"the disk is full on {socket.gethostname()}: free are {_free(folders)}; make room and"
            " run again: what was finished is kept"
        ) from error


def has_room(folder: Path) -> bool:
    """Whether more is free than the rest that a failed write leaves."""
    return shutil.disk_usage(_existing(folder)).free > _REST


def is_full_disk(error: BaseException) -> bool:
    """Whether that is what an error means."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(words in text for words in _WORDS) or _is_cut_array(error, text)


def _is_cut_array(error: BaseException, text: str) -> bool:
    """What `numpy.save` says, which has no number."""
    return type(error) is OSError and " requested and " in text and text.endswith(" written")


def _free(folders: tuple[Path, ...]) -> str:
    """The free space of each disk that the folders, which may be gone, are on."""
    found: dict[int, str] = {}
    for folder in folders:
        there = _existing(folder)
        megabytes = shutil.disk_usage(there).free / 1e6
        found.setdefault(there.stat().st_dev, f"{megabytes:,.1f} MB for {folder}")
    return ", ".join(found.values())


def _existing(folder: Path) -> Path:
    """The folder, or the next one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def mapped_array(path: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """An array of zeros in a file, of which the machine keeps in memory what it has room for.

    Its place on the disk is taken at once: on a full disk a page of a file with holes cannot be
    written, which ends the process by SIGBUS.

    Raises:
        OSError: if the disk is full.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, mode="r+", shape=shape)
