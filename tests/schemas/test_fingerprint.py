"""A comment changes no fingerprint, code that bears on the result does, through the imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from schemas.fingerprint import code_digests, versions_of


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    _write(tmp_path, "helper", "def twice(x):\n    return 2 * x\n")
    _write(tmp_path, "unused", "x = 1\n")
    work = "from tasks import helper\nimport json\n\n\ndef f(x):\n    return helper.twice(x)\n"
    _write(tmp_path, "work", work)
    return tmp_path


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.py"
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000_000,) * 2)


def test_imports_within_the_rooms_are_followed_and_no_others(room: Path) -> None:
    assert set(code_digests(["tasks.work"])) == {"tasks", "tasks.work", "tasks.helper"}


def test_comments_docstrings_and_layout_change_nothing(room: Path) -> None:
    before = code_digests(["tasks.work"])
    text = (
        '"""Doubles."""\n# a reason\ndef twice(x):\n    """Twice x."""\n    return (2 *\n     x)\n'
    )
    _write(room, "helper", text)
    assert code_digests(["tasks.work"]) == before


def test_an_edit_in_an_imported_module_is_seen_and_named(room: Path) -> None:
    before = code_digests(["tasks.work"])
    _write(room, "helper", "def twice(x):\n    return 3 * x\n")
    after = code_digests(["tasks.work"])
    assert {name for name in after if after[name] != before[name]} == {"tasks.helper"}


def test_an_edit_elsewhere_is_not(room: Path) -> None:
    before = code_digests(["tasks.work"])
    _write(room, "unused", "x = 2\n")
    assert code_digests(["tasks.work"]) == before


@pytest.mark.parametrize(
    "statement",
    ["import tasks.helper", "from tasks.helper import twice", "from .helper import twice",
     "def late():\n    from tasks import helper"],
)  # fmt: skip
def test_every_form_of_import_is_seen(room: Path, statement: str) -> None:
    _write(room, "work", statement + "\n")
    assert "tasks.helper" in code_digests(["tasks.work"])


def test_a_module_that_is_not_there_is_named(room: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"tasks\.nothing"):
        code_digests(["tasks.nothing"])


def test_versions_are_those_installed() -> None:
    import pydantic

    assert versions_of(["pydantic"]) == {"pydantic": pydantic.__version__}


def test_nothing_is_imported_for_it() -> None:
    program = (
        "import sys; from schemas.fingerprint import code_digests;"
        " code_digests(['tasks.train_prior', 'model_zoo.training.worker']);"
        " assert not [name for name in sys.modules if name.startswith(('tasks', 'model_zoo.'))]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
