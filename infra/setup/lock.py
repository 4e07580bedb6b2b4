"""Write requirements.lock: the versions of everything that pyproject.toml asks for.

The present pins are kept, so that a new dependency moves nothing else and a second run changes
nothing; `make lock UPGRADE="torch torchvision"` lets those go, `make lock UPGRADE=all` lets all go.
pip resolves in a temporary virtual environment; no index and no hash of a build is written down.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import tomllib
import venv
from collections.abc import Collection, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
# img2dataset asks for this backport; it shadows the standard library and kills Prefect's server.
LEFT_OUT = frozenset({"dataclasses"})
HEADER = """\
# Written by `make lock` from pyproject.toml. The set is closed except for the backport
# `dataclasses`, which must not be installed, so install it without looking for dependencies:
#     pip install --no-deps -r requirements.lock && pip install --no-deps -e .
"""


def normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked(pyproject: Path) -> list[str]:
    """Requirements of the project and of all its extras."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for extra in extras for line in extra)]


def pins(lock: Path) -> dict[str, str]:
    """Version by normal name; none if there is no lock yet."""
    lines = lock.read_text().splitlines() if lock.exists() else []
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def kept(present: dict[str, str], upgrade: Collection[str]) -> list[str]:
    """Constraints that hold what is not to be upgraded."""
    free = {normal(name) for name in upgrade}
    held = {} if "all" in free else present
    return [f"{name}=={version}" for name, version in held.items() if name not in free]


def resolve(requirements: Iterable[str], constraints: Iterable[str]) -> dict[str, str]:
    """Version by normal name, as pip resolves them for this Python on this platform.

    Raises:
        subprocess.CalledProcessError: if there is no solution; pip has said why on stderr.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        venv.create(folder / "venv", with_pip=True)
        (folder / "asked.txt").write_text("\n".join(requirements))
        (folder / "kept.txt").write_text("\n".join(constraints))
        command = ["venv/bin/python", "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--disable-pip-version-check", "--ignore-installed"]
        command += ["-r", "asked.txt", "-c", "kept.txt", "--report", "report.json"]
        subprocess.run(command, cwd=folder, check=True)
        found = json.loads((folder / "report.json").read_text())["install"]
    pairs = ((normal(item["metadata"]["name"]), item["metadata"]["version"]) for item in found)
    # A local version (2.14.1+cpu) is a build of one index; the pin must not name any.
    return {name: v.split("+")[0] for name, v in sorted(pairs) if name not in LEFT_OUT}


def main() -> None:
    """Resolve, write the lock, and say what moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upgrade", nargs="*", help='names to let go, or "all"')
    before = pins(LOCK)
    after = resolve(asked(ROOT / "pyproject.toml"), kept(before, parser.parse_args().upgrade))
    LOCK.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in after.items()))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            print(f"{name}: {before.get(name, '-')} -> {after.get(name, '-')}")


if __name__ == "__main__":
    main()
