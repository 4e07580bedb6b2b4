"""What a stage may declare of a network: the fields of the network's own configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from schemas.base import Frozen
from schemas.pipeline import nearest


def check_config(network: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration that is not one of the network's, without building the network.

    Raises:
        ValueError: naming the key, its value and what would be right.
    """
    model = config_model(network)
    try:
        model.model_validate(dict(config))
    except ValidationError as error:
        raise ValueError(_explain(error, model)) from error


def config_model(network: str) -> type[Frozen]:
    """The configuration of a network: the one model named `…Config` that its module defines.

    Raises:
        ValueError: if there is no such module, or it is no network's.
    """
    name = f"model_zoo.{network}"
    if not network.isidentifier() or find_spec(name) is None:
        raise ValueError(f"network {network!r}: there is no module {name}")
    # Imported here, with torch behind it: who only reads a manifest does not pay for it.
    module = importlib.import_module(name)
    models = [
        one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Frozen)
    ]
    own = [one for one in models if one.__module__ == name and one.__name__.endswith("Config")]
    if not hasattr(module, "build_recipe") or len(own) != 1:
        raise ValueError(f"network {network!r}: module {name} is none of a network")
    return own[0]


def known_sizes(sizes: Mapping[str, int], network: str) -> dict[str, int]:
    """Those of the sizes that the network's configuration has."""
    fields = config_model(network).model_fields
    return {name: size for name, size in sizes.items() if name in fields}


def _explain(error: ValidationError, model: type[Frozen]) -> str:
    # A misspelt key shows as an unknown one and a missing one: the unknown one says more.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"{key}: unknown key; {nearest(key, model.model_fields)}"
    if first["type"] == "missing":
        return f"{key}: this key is missing"
    return f"{key}: {first['msg']} (it is {first['input']!r})" if key else first["msg"]
