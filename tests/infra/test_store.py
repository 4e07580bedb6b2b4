"""Bytes by their sha256, small texts whole or not at all, on a local folder and on S3 alike."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import DamagedUnit
from infra.store import Store, hash_file
from tests.s3 import s3_server


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    return Store(f"{request.getfixturevalue('s3_url')}/{tmp_path.name}")


def _file(folder: Path, text: str) -> Path:
    path = folder / "made.txt"
    path.write_text(text)
    return path


def test_a_unit_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    unit = store.put(_file(tmp_path, "pictures"), "a.tar", records=3)
    assert store.has(unit)
    assert store.fetch(unit, tmp_path / "fetched").read_text() == "pictures"
    assert (unit.sha256, unit.size) == hash_file(tmp_path / "made.txt")


def test_the_same_bytes_are_stored_once(store: Store, tmp_path: Path) -> None:
    first = store.put(_file(tmp_path, "same"), "a.txt")
    second = store.put(_file(tmp_path, "same"), "b.txt")
    assert first.sha256 == second.sha256
    assert store.names(f"blobs/{first.sha256[:2]}") == [first.sha256]


@pytest.mark.parametrize("altered", [b"picturez", b"pict", b""])
def test_altered_bytes_are_found_when_read(store: Store, tmp_path: Path, altered: bytes) -> None:
    unit = store.put(_file(tmp_path, "pictures"), "a.tar")
    _overwrite(store, unit.sha256, altered)
    with pytest.raises(DamagedUnit, match=r"a\.tar"):
        store.fetch(unit, tmp_path / "fetched")
    assert store.check(unit)


def test_a_missing_unit_is_damage_too_and_can_be_put_again(store: Store, tmp_path: Path) -> None:
    unit = store.put(_file(tmp_path, "pictures"), "a.tar")
    store.discard(unit.sha256)
    assert not store.has(unit)
    assert store.check(unit) == "missing"
    with pytest.raises(DamagedUnit, match="missing"):
        store.fetch(unit, tmp_path / "fetched")
    store.put(_file(tmp_path, "pictures"), "a.tar")
    assert store.check(unit) is None


def test_only_one_of_many_creates_an_entry(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.create("fingerprints/f", {"n": n}), range(8)))
    assert won.count(True) == 1
    assert store.read("fingerprints/f") == {"n": won.index(True)}


def test_entries_are_written_listed_and_deleted(store: Store) -> None:
    store.write("memo/b.json", {"x": 1})
    store.write("memo/a.json", {"x": 2})
    store.write("memo/a.json", {"x": 3})
    assert store.names("memo") == ["a.json", "b.json"]
    assert store.read("memo/a.json") == {"x": 3}
    store.delete("memo")
    assert store.read("memo/a.json") is None
    assert store.names("memo") == []


def test_a_store_travels_to_other_processes_by_its_url(store: Store, tmp_path: Path) -> None:
    unit = store.put(_file(tmp_path, "pictures"), "a.tar")
    assert pickle.loads(pickle.dumps(store)).has(unit)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    path = _file(tmp_path, "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.store.shutil.copyfile", _full)
        with pytest.raises(OSError, match="No space left"):
            store.put(path, "a.tar")
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []


def _full(source: Path, target: Path) -> None:
    Path(target).write_bytes(b"pict")
    raise OSError(28, "No space left on device")


def _overwrite(store: Store, sha256: str, data: bytes) -> None:
    if store.is_local:
        path = Path(store.path(store.blob(sha256)))
        path.chmod(0o644)
        path.write_bytes(data)
    else:
        store.filesystem.pipe_file(store.path(store.blob(sha256)), data)


def test_what_is_being_written_is_no_entry(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    store.write("memo/a.json", 1)
    (tmp_path / "memo" / ".b.json.0123").write_text("{")  # as a writer that was killed leaves it
    assert store.names("memo") == ["a.json"]
