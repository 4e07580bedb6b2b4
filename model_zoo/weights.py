"""One file for a trained network: safetensors, with the configuration that rebuilds it.

The file's metadata holds `tapir`: JSON of `{"network": NAME, "config": {...}}`. NAME is a module of
`model_zoo` whose `build_recipe(config)` makes the network, so a file is loaded without pickle and
without knowing beforehand what is in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model_zoo.training.recipe import Recipe

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def build_recipe(name: str, config: Mapping[str, Any]) -> Recipe:
    """The recipe that module `model_zoo.NAME` makes from a configuration.

    Raises:
        ValueError: if there is no such network, or the configuration is not one of its.
    """
    module = f"model_zoo.{name}"
    if not _NAME.fullmatch(name) or importlib.util.find_spec(module) is None:
        raise ValueError(f"network {name!r}: there is no module {module}")
    build = getattr(importlib.import_module(module), "build_recipe", None)
    if build is None:
        raise ValueError(f"network {name!r}: module {module} has no build_recipe, so is no network")
    recipe: Recipe = build(dict(config))
    return recipe


def save_network(path: Path, network: nn.Module, name: str, config: Mapping[str, Any]) -> None:
    """Write a network's weights and configuration to one file, whole or not at all."""
    save_weights(path, network.state_dict(), name, config)


def save_weights(
    path: Path, weights: Mapping[str, Tensor], name: str, config: Mapping[str, Any]
) -> None:
    """As `save_network`, for weights that are not (or not only) in a module, such as an average."""
    metadata = {"tapir": json.dumps({"network": name, "config": dict(config)}, sort_keys=True)}
    # Cloned, since safetensors refuses views that share one storage.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    unfinished = path.with_name(path.name + ".unfinished")
    save_file(tensors, unfinished, metadata)
    unfinished.replace(path)


def read_header(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and configuration of the network in a file, without reading its weights.

    Raises:
        ValueError: if the file was not written by `save_network`.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "tapir" not in metadata:
        raise ValueError(f"{path}: not a network of ours: its metadata has no entry `tapir`")
    header = json.loads(metadata["tapir"])
    return header["network"], header["config"]


def load_network(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """The network in a file, in evaluation mode.

    Raises:
        ValueError: if the file is not ours, or its weights do not fit the network it names.
    """
    name, config = read_header(path)
    network = build_recipe(name, config).network
    with safe_open(path, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    _check_fit(path, weights, network.state_dict())
    network.load_state_dict(weights)
    return network.to(device).eval()


def _check_fit(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        here = tuple(found[key].shape) if key in found else "absent"
        there = tuple(wanted[key].shape) if key in wanted else "absent"
        if here != there:
            raise ValueError(f"{path}: {key} is {here} in the file, {there} in the network")
