"""The folder of a registered model, complete in itself: weights, code, and how to load it.

The code that draws goes along as source, so that a version draws the same pictures when the
repository has moved on. It is found through the import graph, together with the networks that the
weights name.
"""

from __future__ import annotations

import ast
import json
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from infra.store import hash_file

ROOMS = ("tasks", "model_zoo", "infra", "schemas")  # rooms whose sources go along
_MODEL = Path(__file__).with_name("drawing_model.py")
# What it gives, a row a picture.
_COLUMNS = {
    "prompt": "string", "rank": "long", "score": "double", "seed": "long", "png": "binary",
}  # fmt: skip


def write_model_folder(
    folder: Path,
    weights: Mapping[str, Path],
    artist: str,
    modules: Iterable[str],
    distributions: Iterable[str],
) -> dict[str, Path]:
    """Write the folder of a model that `mlflow.pyfunc.load_model` loads.

    Args:
        folder: an empty or absent folder.
        weights: file name within the model -> file.
        artist: "module:Class" that draws (`infra.lineage.drawing_model`).
        modules: what else is imported by name only, such as the networks in the weights.
        distributions: what the code needs to be installed.

    Returns:
        All its files, by path within the model.
    """
    made = folder / "made"
    _gather_weights(made / "model", weights, artist)
    code = _copy_sources(made / "code", [artist.split(":", maxsplit=1)[0], *modules])
    _save(folder / "saved", made / "model", code, distributions)
    files = (path for path in sorted((folder / "saved").rglob("*")) if path.is_file())
    return {path.relative_to(folder / "saved").as_posix(): path for path in files}


def source_files(modules: Iterable[str]) -> dict[str, Path]:
    """Source files of modules and of all that they import from our rooms, by module."""
    found: dict[str, Path] = {}
    waiting = sorted(set(modules))
    while waiting:
        name = waiting.pop()
        if name not in found and (path := _source(name)) is not None:
            found[name] = path
            waiting += _imported(path, name)
            waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(found.items()))


def _gather_weights(folder: Path, weights: Mapping[str, Path], artist: str) -> None:
    folder.mkdir(parents=True)
    hashes = {}
    for name, path in weights.items():
        shutil.copyfile(path, folder / name)
        hashes[name] = hash_file(folder / name)[0]
    text = json.dumps({"artist": artist, "sha256": hashes}, indent=1, sort_keys=True)
    (folder / "model.json").write_text(text)


def _copy_sources(folder: Path, modules: Iterable[str]) -> list[Path]:
    """Copy the sources, packages as packages; the top folders."""
    for name, path in source_files(modules).items():
        relative = Path(*name.split("."))
        is_package = path.name == "__init__.py"
        target = folder / (relative / "__init__.py" if is_package else relative.with_suffix(".py"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return sorted(folder.iterdir())


def _save(target: Path, model: Path, code: list[Path], distributions: Iterable[str]) -> None:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        # Without a name for the column, a plain list of texts will do as well as a table.
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec(kind, name) for name, kind in _COLUMNS.items()]),
        params=ParamSchema(
            [
                ParamSpec("candidates", "long", 16),
                ParamSpec("keep", "long", 4),
                ParamSpec("seed", "long", 0),
            ]
        ),
    )
    needed = sorted({"mlflow", "pandas", *distributions})
    with warnings.catch_warnings():
        # It asks for type hints and an example; the signature above says both more exactly.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            target,
            python_model=str(_MODEL),
            artifacts={"model": str(model)},
            code_paths=[str(path) for path in code],
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in needed],
            signature=signature,
        )


def _source(module: str) -> Path | None:
    """The source file of a module of our rooms; None for other modules, and for plain names."""
    if module.split(".", maxsplit=1)[0] not in ROOMS:
        return None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _imported(path: Path, module: str) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
