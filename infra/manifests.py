"""Reading manifests back: by their own hash, and by what a pipeline's stage had last."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from infra.store import Store
from schemas.manifest import Manifest

METRICS = "metrics.jsonl"  # side unit with a stage's metrics over time


def read_manifest(store: Store, provenance: str) -> Manifest | None:
    """A manifest by its provenance digest; None if it is missing or was altered."""
    manifest, _ = examine_manifest(store, provenance)
    return manifest


def examine_manifest(store: Store, provenance: str) -> tuple[Manifest | None, str | None]:
    """A manifest that is what its name says, or else the problem in words."""
    try:
        found = store.read(f"manifests/{provenance}.json")
        manifest = Manifest.model_validate(found) if found is not None else None
    except ValueError as error:  # not JSON any more, or not a manifest
        return None, f"altered: {str(error).splitlines()[0]}"
    if manifest is None:
        return None, "missing"
    if manifest.provenance != provenance:
        return None, f"altered: its text has the hash {manifest.provenance[:12]}…, not its name"
    return manifest, None


def latest(store: Store, pipeline: str, stage: str) -> Manifest | None:
    """The manifest that a pipeline's stage had last."""
    pointer = store.read(f"pipelines/{pipeline}/{stage}.json")
    return read_manifest(store, pointer["provenance"]) if pointer else None


def previous(store: Store, pipeline: str, stage: str) -> Manifest | None:
    """The manifest that a pipeline's stage had before the last one."""
    pointer = store.read(f"pipelines/{pipeline}/{stage}.json") or {}
    return read_manifest(store, pointer["previous"]) if "previous" in pointer else None


def read_metrics(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    """The metric series beside a manifest, `{name, value, step}` each; none if none were logged.

    Raises:
        DamagedUnit: if the stored bytes are missing or altered.
    """
    found = [unit for unit in manifest.side if unit.name == METRICS]
    if not found:
        return []
    with tempfile.TemporaryDirectory() as folder:
        text = store.fetch(found[0], Path(folder)).read_text()
    return [json.loads(line) for line in text.splitlines()]
