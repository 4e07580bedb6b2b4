"""What every contract shares: frozen, strict models and one canonical text for values.

Canonical text is what identities are made of, so it is refused for anything whose text may differ
between two processes (sets, callables, default reprs) instead of being guessed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A model that cannot change and refuses words it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical(value: Any) -> str:
    """The one text of a value: JSON, keys sorted, no spaces.

    Raises:
        TypeError: for a value whose text is not the same in every process.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical text of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"only text keys have a stable order: {list(value)!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain_atom(value)


def _plain_atom(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain_atom(value.value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _plain_float(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(
        f"{type(value).__name__} has no text that is the same in every process, so it cannot be"
        f" part of an identity: {value!r}; use text, numbers, lists, mappings or a frozen model"
    )


def _plain_float(value: float) -> float | int:
    if not math.isfinite(value):
        raise TypeError(f"{value!r} has no JSON text, so it cannot be part of an identity")
    # 1.0 and 1 are the same value in a YAML file and must not make two identities.
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
