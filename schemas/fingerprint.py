"""Code fingerprints: a digest for each module that bears on a result, through the import graph.

Comments, docstrings and layout are left out, so that a better explanation retrains nothing. Only
the rooms that compute are followed; the adapters and the runner are not part of any result.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("tasks", "model_zoo")  # rooms whose code bears on results


def code_digests(modules: Iterable[str]) -> dict[str, str]:
    """sha256 by module: the given ones and all they import from the rooms that compute.

    Raises:
        ModuleNotFoundError: naming the module that cannot be found.
    """
    found: dict[str, str] = {}
    waiting = sorted(set(modules))
    while waiting:
        module = waiting.pop()
        if module not in found:
            path = _path(module)
            found[module], imported = _read(path, path.stat().st_mtime_ns, module)
            waiting += [name for name in imported if name not in found]
    return dict(sorted(found.items()))


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name.

    Raises:
        importlib.metadata.PackageNotFoundError: for one that is not installed.
    """
    return {name: metadata.version(name) for name in sorted(set(distributions))}


@functools.lru_cache(maxsize=1024)
def _read(path: Path, modified: int, module: str) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_bytes())
    imported = tuple(sorted(_imports(tree, module, path.name == "__init__.py")))
    _strip_docstrings(tree)
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest(), imported


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if _is_text(first):
                node.body = node.body[1:] or [ast.Pass()]


def _is_text(node: ast.AST | None) -> bool:
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def _imports(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _module_and_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            found |= _module_and_packages(base)
            for alias in node.names:  # `from tasks import text` names a module, too
                if base.split(".")[0] in ROOMS and _exists(f"{base}.{alias.name}"):
                    found.add(f"{base}.{alias.name}")
    return found - {module}


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _module_and_packages(name: str) -> set[str]:
    # Importing tasks.filters.size runs tasks and tasks.filters first.
    parts = name.split(".")
    if parts[0] not in ROOMS:
        return set()
    return {".".join(parts[: i + 1]) for i in range(len(parts))}


def _exists(module: str) -> bool:
    try:
        return _source(module) is not None
    except ModuleNotFoundError:
        return False


def _path(module: str) -> Path:
    path = _source(module)
    if path is None:
        raise ModuleNotFoundError(f"there is no module {module}", name=module)
    return path


def _source(module: str) -> Path | None:
    """The file of a module. Nothing is imported for it, as `find_spec` would import packages: what
    is cached runs none of that code."""
    top, *below = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    if not below:
        if spec.origin is None or not spec.origin.endswith(".py"):
            raise ModuleNotFoundError(f"module {module} has no source file to read", name=module)
        return Path(spec.origin)
    folders = getattr(sys.modules.get(top), "__path__", spec.submodule_search_locations) or ()
    paths = [Path(folder, *below) for folder in folders]
    files = [one for path in paths for one in (path / "__init__.py", path.with_suffix(".py"))]
    return next((file for file in files if file.is_file()), None)
