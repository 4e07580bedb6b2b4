"""A lease that is held is renewed as long as its attempt lives, whatever the store does."""

import shutil
import time

import pytest

from infra import lease
from infra.errors import Fenced
from infra.lease import Lease
from infra.store import Store


def _renewed(store, fingerprint):
    return store.read(f"partial/{fingerprint}/lease-000001.json")["renewed"]


def _eventually(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_that_was_away_does_not_end_the_renewal(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_RENEWAL", 0.02)
    store = Store(str(tmp_path / "store"))
    held = Lease.take(store, "f" * 64)
    folder = tmp_path / "store" / "partial" / ("f" * 64)
    _eventually(lambda: _renewed(store, "f" * 64) > held._owner["started"])

    shutil.move(folder, tmp_path / "away")
    folder.write_text("nothing can be written below a file")
    time.sleep(0.2)  # some renewals fail
    folder.unlink()
    shutil.move(tmp_path / "away", folder)
    before = _renewed(store, "f" * 64)
    _eventually(lambda: _renewed(store, "f" * 64) > before)
    held.check()
    store.write(f"partial/{'f' * 64}/lease-000002.json", {"host": "another"})
    with pytest.raises(Fenced, match="attempt 1 on ffffffffffff… was replaced"):
        held.check()
    held.release()
