"""Which of a pipeline's latest manifests were made from one another."""

from __future__ import annotations

from collections.abc import Mapping

from infra.manifests import latest
from infra.store import Store
from schemas.manifest import InputRef, Manifest

Manifests = Mapping[str, Manifest]  # by stage


def latest_of(pipeline: str, store: Store) -> dict[str, Manifest]:
    """What each stage of a pipeline had last; stages without anything are left out."""
    stages = [name.removesuffix(".json") for name in store.names(f"pipelines/{pipeline}")]
    return {name: one for name in stages if (one := latest(store, pipeline, name))}


def made_from(manifests: Manifests, kind: str, source: Manifest | None = None) -> Manifest | None:
    """The latest manifest with an output of a kind; of those made from `source`, if it is given."""
    wanted = {out.digest for out in source.outputs.values()} if source else set()
    found = [
        one
        for one in manifests.values()
        if output_of(one, kind)
        and (source is None or any(ref.digest in wanted for ref in one.inputs.values()))
    ]
    return max(found, key=lambda one: one.run.ended, default=None)


def output_of(manifest: Manifest, kind: str) -> str | None:
    """The name of the first output of a kind; None if there is none."""
    return next((name for name, out in manifest.outputs.items() if out.kind == kind), None)


def input_of(manifest: Manifest, kind: str) -> InputRef | None:
    """The first input of a kind; None if there is none."""
    return next((ref for ref in manifest.inputs.values() if ref.kind == kind), None)
