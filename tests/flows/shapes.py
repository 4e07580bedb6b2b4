"""The bundled declaration `shapes` at tiny scale: every stage, in a minute instead of ten."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.declaration import BUNDLED
from infra.environment import Environment
from infra.manifests import latest
from infra.store import Store
from schemas.manifest import Manifest
from tests.flows.command import Tapir

# What is smaller than in the bundled file; all else is as there.
_TRAINING = {
    "steps": 8, "batch_size": 8, "warmup": 2, "checkpoint_every": 4, "log_every": 1,
}  # fmt: skip
_SMALLER: dict[str, dict[str, Any]] = {
    "images": {"chunk": 80},
    "image_tokenizer": {
        "config": {"vocabulary": 64, "width": 16, "decoder_width": 16, "temperature_steps": 6},
        "training": _TRAINING,
    },
    "prior": {"config": {"width": 32, "heads": 2, "layers": 2}, "training": _TRAINING},
    "ranker": {
        "config": {
            "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
            "features": 8,  # fewer than the pictures that are compared on them
        },
        "training": _TRAINING,
    },
    "samples": {"per_group": 1, "candidates": 2, "prompts_per_unit": 2},
    "evaluation": {"originals": 16},
    "model": {"bound": 0.0},  # so that even this model becomes champion
}  # fmt: skip
PAGES = 60


def tiny(name: str = "shapes") -> dict[str, Any]:
    """The declaration, or that of another pipeline with the same stages."""
    values: dict[str, Any] = yaml.safe_load((BUNDLED / f"{name}.yaml").read_text())
    values["web"]["pages"] = PAGES
    for stage, smaller in _SMALLER.items():
        _merge(values["stages"][stage]["params"], smaller)
    return values


def _merge(values: dict[str, Any], smaller: dict[str, Any]) -> None:
    for key, value in smaller.items():
        if isinstance(value, dict):
            _merge(values[key], value)
        else:
            values[key] = value


@dataclass(frozen=True)
class Shapes:
    """The tiny pipeline after its first run."""

    tapir: Tapir
    said: str
    seconds: float

    @property
    def store(self) -> Store:
        """Its artifacts."""
        return Store(Environment(home=self.tapir.home).store_url)

    def manifest(self, stage: str) -> Manifest:
        """What a stage has made."""
        found = latest(self.store, "shapes", stage)
        assert found is not None
        return found


def run_tiny(folder: Path) -> Shapes:
    """Run it to its end, with servers of its own, as somebody does who types `tapir run`."""
    tapir = Tapir(folder, yaml.safe_dump(tiny(), sort_keys=False))
    start = time.monotonic()
    said = tapir("run", str(tapir.file))
    return Shapes(tapir, said, time.monotonic() - start)
