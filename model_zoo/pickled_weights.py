"""Tensors out of pickled modules, without running what a pickle may hold.

`torch.save(module)` stores a zip of tensor storages and a pickle of the module's structure, and
loading that calls whatever the pickle names. Here the pickle is read with stand-ins: a class of
torch or of the network becomes an inert shell that keeps its state, a tensor is built from its
storage by our own code, and any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
}  # fmt: skip
_LARGEST_PICKLE = 16_000_000  # bytes; it holds the structure, and no weights
_DEEPEST = 32  # modules within modules


def read_modules(path: Path, packages: tuple[str, ...]) -> dict[str, Tensor]:
    """Parameters and buffers of a module that `torch.save` wrote, by their dotted names.

    Args:
        packages: of which classes may be named beside torch's; none of their code is run.

    Raises:
        ValueError: for a file that is no such zip, is damaged, or names anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _unpickle(archive, packages)
    except (zipfile.BadZipFile, KeyError, EOFError, pickle.UnpicklingError, OverflowError) as error:
        raise ValueError(
            f"{path.name}: not a module as torch.save writes it today ({error}); a file of before"
            " torch 1.6 must be saved again first"
        ) from error
    if not isinstance(root, _Shell):
        raise ValueError(f"{path.name}: holds a {type(root).__name__} and no module")
    return dict(_tensors(root, "", 0))


class _Shell:
    """Stands in for an object of any class: keeps what it was given, and does nothing."""

    state: Any = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _unpickle(archive: zipfile.ZipFile, packages: tuple[str, ...]) -> Any:
    structure = [name for name in archive.namelist() if name.count("/") == 1 and _is(name)]
    if len(structure) != 1:
        raise ValueError(f"{archive.filename}: holds {len(structure)} files data.pkl, not one")
    if archive.getinfo(structure[0]).file_size > _LARGEST_PICKLE:
        raise ValueError(f"{archive.filename}: its data.pkl is larger than any module's structure")
    reader = _Reader(io.BytesIO(archive.read(structure[0])))
    reader.archive, reader.packages = archive, packages
    reader.folder = structure[0].rpartition("/")[0]
    try:
        return reader.load()
    except (TypeError, AttributeError, IndexError) as error:  # a pickle of nonsense
        raise pickle.UnpicklingError(str(error)) from error


def _is(name: str) -> bool:
    return name.endswith("/data.pkl")


class _Reader(pickle.Unpickler):
    """Gives shells for classes, and tensors for what rebuilds them."""

    archive: zipfile.ZipFile
    folder: str
    packages: tuple[str, ...]

    def find_class(self, module: str, name: str) -> Any:
        known: Mapping[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name == "device":
            return _Shell
        if module.startswith("torch.nn.") or module.split(".", maxsplit=1)[0] in self.packages:
            return _Shell
        raise ValueError(
            f"{self.archive.filename}: names {module}.{name}, which no file of weights needs; it is"
            " not read"
        )

    def persistent_load(self, identity: Any) -> Tensor:
        """The storage of a tensor, flat."""
        kind, dtype, key, _, numel = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise ValueError(f"{self.archive.filename}: an unknown kind of storage")
        info = self.archive.getinfo(f"{self.folder}/data/{key}")
        if info.file_size != numel * dtype.itemsize or info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{self.archive.filename}: storage {key} has {info.file_size:,} bytes, not those"
                f" of {numel:,} numbers"
            )
        return torch.frombuffer(bytearray(self.archive.read(info)), dtype=dtype)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if offset < 0 or min((*size, 1)) < 1 or min((*stride, 0)) < 0 or reach > len(storage):
        raise ValueError(f"a tensor of {size} does not fit its storage of {len(storage)} numbers")
    if math.prod(size) > len(storage):
        raise ValueError(f"a tensor of {size} repeats numbers of its storage")
    return storage.as_strided(size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _tensors(shell: _Shell, prefix: str, depth: int) -> list[tuple[str, Tensor]]:
    if not isinstance(shell.state, dict) or depth > _DEEPEST:
        raise ValueError(f"{prefix or 'the file'}: is no module")
    found: list[tuple[str, Tensor]] = []
    for kind in ("_parameters", "_buffers"):
        for name, tensor in shell.state.get(kind, {}).items():
            if isinstance(tensor, Tensor):
                found.append((f"{prefix}{name}", tensor))
    for name, child in shell.state.get("_modules", {}).items():
        if isinstance(child, _Shell):
            found += _tensors(child, f"{prefix}{name}.", depth + 1)
    return found
