"""Find the files of a model, registered or a pipeline's own, and draw with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.environment import Environment
from infra.errors import PermanentError
from infra.manifests import latest, read_manifest
from infra.store import Store
from schemas.artifact import ImageTokenizer, Prior, Ranker, TextTokenizer
from schemas.pipeline import nearest

if TYPE_CHECKING:
    from tasks.drawing import ModelFiles

_PARTS = {
    "prior": Prior.kind,
    "image_tokenizer": ImageTokenizer.kind,
    "text_tokenizer": TextTokenizer.kind,
    "ranker": Ranker.kind,
}


def sample_pictures(
    store: Store, environment: Environment, model: str, prompt: str,
    candidates: int, keep: int, seed: int, output: Path,
) -> dict[str, Any]:  # fmt: skip
    """Draw a prompt; paths of the pictures kept, best first, and of the sheet.

    Args:
        model: `models:/NAME@ALIAS`, or the name of a pipeline whose models are made.

    Raises:
        PermanentError: if there is no such model.
        ValueError: for a prompt that cannot be drawn, or numbers that make no sense.
        DamagedUnit: if a file of the model is missing or altered.
    """
    from tasks.drawing import draw_to_folder  # imports torch, which takes seconds

    with tempfile.TemporaryDirectory() as folder:
        files = model_files(store, environment, model, Path(folder))
        paths = draw_to_folder(files, prompt, candidates, keep, seed, output)
    return {"pictures": [str(path) for path in paths[:-1]], "sheet": str(paths[-1])}


def model_files(store: Store, environment: Environment, model: str, folder: Path) -> ModelFiles:
    """Hash-checked local files of a model's four parts."""
    from tasks.drawing import ModelFiles

    chosen = (
        _registered(store, environment, model)
        if model.startswith("models:/")
        else _of_pipeline(store, model)
    )
    paths = {}
    for part, (provenance, name) in chosen.items():
        manifest = read_manifest(store, provenance)
        if manifest is None:
            raise PermanentError(f"{model}: the manifest {provenance[:12]}… of its {part} is gone")
        paths[part] = store.fetch(manifest.outputs[name].units[0], folder)
    return ModelFiles(**paths)


def _registered(store: Store, environment: Environment, model: str) -> dict[str, tuple[str, str]]:
    from infra.trace import resolve

    reference = resolve(store, model, environment.tracking_uri)
    assert reference.model is not None, "a models:/ reference names a model"
    made_of = reference.model.registration.made_of
    return {part: (made_of[part].provenance, made_of[part].output) for part in _PARTS}


def _of_pipeline(store: Store, pipeline: str) -> dict[str, tuple[str, str]]:
    """The parts that a pipeline's stages had last; the one made last where two are of a kind."""
    stages = [name.removesuffix(".json") for name in store.names(f"pipelines/{pipeline}")]
    if not stages:
        known = nearest(pipeline, store.names("pipelines"))
        raise PermanentError(f"no pipeline {pipeline!r} has made anything here; {known}")
    found: dict[str, tuple[float, str, str]] = {}
    for manifest in filter(None, (latest(store, pipeline, stage) for stage in stages)):
        for name, output in manifest.outputs.items():
            candidate = (manifest.run.ended, manifest.provenance, name)
            found[output.kind] = max(found.get(output.kind, candidate), candidate)
    missing = [part for part, kind in _PARTS.items() if kind not in found]
    if missing:
        raise PermanentError(f"{pipeline} has not made its {', '.join(missing)} yet")
    return {part: found[kind][1:] for part, kind in _PARTS.items()}
