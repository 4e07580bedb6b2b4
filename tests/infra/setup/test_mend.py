"""`infra/setup/mend.py`: what an interrupted install left is forgotten, the rest is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.setup.mend import mend


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("whole", "torn", "bare", "dataclasses"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        record = f"{name}.py,,\n__pycache__/{name}.cpython-311.pyc,,\n{info.name}/RECORD,,\n"
        (info / "RECORD").write_text(record)
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "torn.py").unlink()
    (tmp_path / "bare-1.0.dist-info/RECORD").unlink()
    return tmp_path


def test_forgets_what_misses_a_file_or_its_record(site: Path) -> None:
    assert {"torn-1.0", "bare-1.0"} <= set(mend(site))
    assert not (site / "torn-1.0.dist-info").exists()
    assert not (site / "bare-1.0.dist-info").exists()


def test_removes_the_backport_that_shadows_the_standard_library(site: Path) -> None:
    assert "dataclasses-1.0" in mend(site)
    assert not (site / "dataclasses.py").exists()


def test_leaves_what_is_whole_though_its_bytecode_is_gone(site: Path) -> None:
    mend(site)
    assert (site / "whole-1.0.dist-info/METADATA").exists()
    assert mend(site) == []
