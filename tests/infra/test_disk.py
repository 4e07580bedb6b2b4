"""A full disk is known whoever meets it, and a mapped file cannot end the process."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from infra.disk import explaining_full_disk, mapped_array
from infra.errors import DiskFull
from tests.small_disk import small_disk

MUCH = np.random.default_rng(0).integers(0, 256, (1000, 2000), dtype=np.uint8)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        yield folder


def _write(path: Path) -> None:
    path.write_bytes(MUCH.tobytes())


def _save(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, MUCH)


def _save_tensors(path: Path) -> None:
    save_file({"a": MUCH}, path)


def _write_table(path: Path) -> None:
    pq.write_table(pa.table({"a": [row.tobytes() for row in MUCH]}), path)


def _insert(path: Path) -> None:
    database = sqlite3.connect(path)
    try:
        database.execute("CREATE TABLE t (a BLOB)")
        database.executemany("INSERT INTO t VALUES (?)", ([row.tobytes()] for row in MUCH))
        database.commit()
    finally:
        database.close()


def _map(path: Path) -> None:
    mapped_array(path, np.uint8, MUCH.shape)[:] = MUCH


@pytest.mark.parametrize("write", [_write, _save, _save_tensors, _write_table, _insert, _map])
def test_a_full_disk_is_told_whoever_meets_it(disk: Path, write: Callable[[Path], None]) -> None:
    with (
        pytest.raises(DiskFull, match=rf"is full on \S+: free are [01]\.\d MB for {disk}; make"),
        explaining_full_disk(disk),
    ):
        write(disk / "file")


def test_each_disk_is_told_once_also_for_a_folder_that_is_gone(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as refused, explaining_full_disk(
        disk / "a/b", disk, tmp_path
    ):  # fmt: skip
        raise OSError(errno.ENOSPC, "No space left on device")
    words = str(refused.value)
    assert f"1.0 MB for {disk / 'a/b'}, " in words and words.count(" MB for ") == 2


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explaining_full_disk(tmp_path):
        (tmp_path / "absent/file").write_bytes(b"")


def test_a_mapped_array_begins_with_zeros_and_keeps_what_is_written(tmp_path: Path) -> None:
    array = mapped_array(tmp_path / "file", np.dtype("<u4"), (3, 5))
    assert not array.any()
    array[1] = 7
    array.flush()
    found = np.fromfile(tmp_path / "file", "<u4").reshape(3, 5)
    assert found.tolist() == [[0] * 5, [7] * 5, [0] * 5]
