"""`infra/setup/venv.sh`: installs once, again when the lock changes, and after an interruption."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "infra/setup/venv.sh"
# Stands for an interpreter: writes down what it is asked to do, and can fail at installing.
FAKE_PYTHON = """#!/bin/bash
echo "$*" >>calls
case "$*" in
--version) echo Python 3.11.9 ;;
"-m venv --clear "*) rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python &&
    echo "#!$PWD/.venv/bin/python" >.venv/bin/pip ;;
"-m pip install "*) [[ ! -e fail ]] ;;
esac
"""
INSTALLS = "-m pip install --disable-pip-version-check --no-deps -r requirements.lock"


class Checkout:
    """A folder with the script, a lock and a stand-in for Python."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "infra/setup").mkdir(parents=True)
        shutil.copy(SCRIPT, root / "infra/setup/venv.sh")
        (root / "requirements.lock").write_text("numpy==2.4.6\n")
        (root / "pyproject.toml").write_text("")
        self.program("python", FAKE_PYTHON)

    def program(self, name: str, text: str) -> Path:
        path = self.root / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, **variables: str) -> tuple[int, list[str], str]:
        """Exit status, what the interpreter was asked to do, and stderr."""
        calls = self.root / "calls"
        calls.write_text("")
        variables = {"PYTHON": str(self.root / "programs/python"), **variables}
        done = subprocess.run(
            ["/bin/bash", "infra/setup/venv.sh"],
            cwd=self.root, env={**os.environ, **variables}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, calls.read_text().splitlines(), done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_installs_the_lock_without_dependencies_then_the_project(checkout: Checkout) -> None:
    status, calls, _ = checkout.run()
    assert status == 0
    assert calls.index(INSTALLS) < calls.index(
        "-m pip install --disable-pip-version-check --quiet --no-deps -e ."
    )


def test_does_nothing_when_it_is_done(checkout: Checkout) -> None:
    checkout.run()
    assert checkout.run() == (0, [], "")


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_installs_again_when_a_file_changes_in_the_same_environment(
    checkout: Checkout, name: str
) -> None:
    checkout.run()
    (checkout.root / name).write_text("torch==2.14.1\n")
    status, calls, _ = checkout.run()
    assert status == 0
    assert INSTALLS in calls
    assert not any("-m venv" in call for call in calls)


def test_an_interrupted_install_is_mended_and_done_again(checkout: Checkout) -> None:
    (checkout.root / "fail").touch()
    assert checkout.run()[0] != 0
    (checkout.root / "fail").unlink()
    status, calls, _ = checkout.run()
    assert status == 0
    assert calls.index("infra/setup/mend.py") < calls.index(INSTALLS)


def test_a_half_made_environment_is_made_anew(checkout: Checkout) -> None:
    (checkout.root / ".venv/bin").mkdir(parents=True)
    (checkout.root / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    status, calls, _ = checkout.run()
    assert status == 0
    assert any(call.startswith("-m venv --clear") for call in calls)


def test_an_environment_that_was_moved_is_made_anew(checkout: Checkout) -> None:
    checkout.run()
    moved = checkout.root / "elsewhere"
    moved.mkdir()
    for name in ("infra", "requirements.lock", "pyproject.toml", ".venv"):
        shutil.move(checkout.root / name, moved / name)
    old, checkout.root = checkout.root, moved
    status, calls, _ = checkout.run(PYTHON=str(old / "programs/python"))
    assert status == 0
    assert any(call.startswith("-m venv --clear") for call in calls)


def test_an_old_python_is_refused_with_what_to_do(checkout: Checkout) -> None:
    old = "#!/bin/bash\n[[ $1 == --version ]] && echo Python 3.9.2 && exit\nexit 1\n"
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        checkout.program(name, old)
    path = f"{checkout.root / 'programs'}:/usr/bin:/bin"
    status, _, error = checkout.run(PYTHON="", PATH=path)
    assert status != 0
    assert "needs Python 3.11 or newer" in error
    assert "Python 3.9.2" in error
    assert "make PYTHON=/path/to/python3.11" in error
