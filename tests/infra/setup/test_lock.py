"""pyproject.toml says what the code imports, and requirements.lock pins a closed set for it."""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from infra.setup.lock import LOCK, ROOT, asked, kept, normal, pins

ROOMS = ("flows", "tasks", "model_zoo", "schemas", "infra")
OURS = {*ROOMS, "tests"}
# Needed though no file of ours imports them.
NOT_IMPORTED = {
    "dask": "its command starts schedulers and workers",
    "fastapi": "bounds Prefect's server",
    "s3fs": "fsspec loads it for s3:// stores",
    "sqlalchemy": "no schedule of Prefect 3.8 fires with 2.1",
    "torchvision": "open_clip's transforms; must fit torch",
    "whenever": "Prefect asks for it from Python 3.13 on",
}


def imported(*rooms: str) -> set[str]:
    """Top-level names of modules, not ours nor the standard library's, that a room imports."""
    files = (file for room in rooms for file in sorted((ROOT / room).rglob("*.py")))
    names = {name for file in files for name in _imports(file)}
    return names - OURS - sys.stdlib_module_names - {file.stem for file in _stages_of_tests()}


def _stages_of_tests() -> Iterator[Path]:
    return (ROOT / "tests/stages").glob("*.py")


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def declared(requirements: list[str]) -> dict[str, Requirement]:
    parsed = (Requirement(line) for line in requirements)
    return {normal(requirement.name): requirement for requirement in parsed}


@functools.cache  # reads the lists of files of everything installed
def distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def providers(module: str) -> set[str]:
    return {normal(name) for name in distributions().get(module, [])}


def project() -> dict[str, Requirement]:
    text = (ROOT / "pyproject.toml").read_text()
    return declared(tomllib.loads(text)["project"]["dependencies"])


def test_every_import_of_the_rooms_is_a_declared_dependency() -> None:
    undeclared = {name for name in imported(*ROOMS) if not providers(name) & project().keys()}
    assert not undeclared, f"declare, then `make lock`: {sorted(undeclared)}"


def test_every_import_of_the_tests_is_declared() -> None:
    everything = declared(asked(ROOT / "pyproject.toml")).keys()
    undeclared = {name for name in imported("tests") if not providers(name) & everything}
    assert not undeclared, f"declare under `test`, then `make lock`: {sorted(undeclared)}"


def test_every_dependency_is_used() -> None:
    used = {name for module in imported(*ROOMS) for name in providers(module)}
    unused = project().keys() - used - NOT_IMPORTED.keys()
    assert not unused, f"remove, or say in NOT_IMPORTED what for: {sorted(unused)}"


def test_the_lock_answers_pyproject() -> None:
    locked = pins(LOCK)
    for name, requirement in declared(asked(ROOT / "pyproject.toml")).items():
        assert name in locked, f"{name} is not locked: run `make lock`"
        assert requirement.specifier.contains(locked[name], prereleases=True)


def test_the_lock_is_closed_but_for_the_backport() -> None:
    locked = pins(LOCK)
    missing = {
        requirement.name
        for name in locked
        for requirement in map(Requirement, metadata.requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not requirement.specifier.contains(locked.get(normal(requirement.name), "!"))
    }
    assert missing == {"dataclasses"}


def test_the_lock_names_no_index_and_only_pins() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert lines == [f"{name}=={version}" for name, version in sorted(pins(LOCK).items())]


def test_what_is_installed_is_what_is_locked() -> None:
    different = {
        name: (version, metadata.version(name))
        for name, version in pins(LOCK).items()
        if metadata.version(name).split("+")[0] != version
    }
    assert not different


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [([], ["a-b==1", "c==2"]), (["A.b"], ["c==2"]), (["all"], [])],
)
def test_pins_are_kept_unless_let_go(upgrade: list[str], expected: list[str]) -> None:
    assert kept({"a-b": "1", "c": "2"}, upgrade) == expected


def test_every_folder_of_code_is_a_package() -> None:
    folders = {file.parent for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    bare = [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]
    assert not bare, "a folder without __init__.py is left out of the distribution"
