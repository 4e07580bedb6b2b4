"""Find the files of a model, registered or a pipeline's own, and draw with them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.environment import Environment
from infra.errors import PermanentError
from infra.manifests import latest, read_manifest
from infra.store import Store
from schemas.artifact import ImageTokenizer, Prior, Ranker, TextTokenizer
from schemas.manifest import Manifest
from schemas.pipeline import nearest
from tasks.candidates import sampling_of

if TYPE_CHECKING:
    from tasks.drawing import ModelFiles, Progress
    from tasks.given import Given

_PARTS = {
    "prior": Prior.kind,
    "image_tokenizer": ImageTokenizer.kind,
    "text_tokenizer": TextTokenizer.kind,
    "ranker": Ranker.kind,
}

# Each part's manifest and output, and the manifests that say how the model was sampled from.
_Chosen = tuple[dict[str, tuple[str, str]], Sequence[Manifest]]


def given_part(image: Path | None, rows: int | None, box: str | None) -> Given | None:
    """What is kept of a picture, as it was typed; None if nothing was.

    Raises:
        ValueError: for a part of no picture, or a file or box that is none.
    """
    from tasks.given import Given, parse_box

    if image is None:
        if rows is not None or box is not None:
            raise ValueError("rows and box: they are of an image; name one with --image")
        return None
    if not image.is_file():
        raise ValueError(f"image: there is no file {image}")
    return Given(image, rows, parse_box(box) if box is not None else None)


def sample_pictures(  # noqa: PLR0913, PLR0917 - as the command's options
    store: Store, environment: Environment, model: str, prompt: str,
    candidates: int, keep: int, seed: int, output: Path, given: Given | None = None,
    partial: bool = False, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Draw a prompt; paths of the pictures kept, best first, and of the sheet.

    Args:
        model: `models:/NAME@ALIAS`, or the name of a pipeline whose models are made.
        given: what is kept of a picture; the rest is drawn.
        partial: write the files anew as rows are drawn.
        progress: is told how many rows are drawn, and of how many.

    Raises:
        PermanentError: if there is no such model.
        ValueError: for a prompt or image that cannot be drawn from, or numbers that make no sense.
        DamagedUnit: if a file of the model is missing or altered.
    """
    from tasks.drawing import draw_to_folder  # imports torch, which takes seconds

    with tempfile.TemporaryDirectory() as folder:
        files = model_files(store, environment, model, Path(folder))
        paths = draw_to_folder(
            files, prompt, candidates, keep, seed, output, given, partial, progress
        )
    return {"pictures": [str(path) for path in paths[:-1]], "sheet": str(paths[-1])}


def model_files(store: Store, environment: Environment, model: str, folder: Path) -> ModelFiles:
    """Hash-checked local files of a model's four parts."""
    from tasks.drawing import ModelFiles

    chosen, manifests = (
        _registered(store, environment, model)
        if model.startswith("models:/")
        else _of_pipeline(store, model)
    )
    paths: dict[str, Any] = {}
    for part, (provenance, name) in chosen.items():
        manifest = read_manifest(store, provenance)
        if manifest is None:
            raise PermanentError(f"{model}: the manifest {provenance[:12]}… of its {part} is gone")
        paths[part] = store.fetch(manifest.outputs[name].units[0], folder)
    return ModelFiles(**paths).sampled_as(sampling_of(manifests))


def _registered(store: Store, environment: Environment, model: str) -> _Chosen:
    from infra.trace import Reference, chain, resolve

    reference = resolve(store, model, environment.tracking_uri)
    assert reference.model is not None, "a models:/ reference names a model"
    made_of = reference.model.registration.made_of
    evaluated = made_of["evaluation"].provenance
    manifests = chain(store, Reference(evaluated, (evaluated,))).manifests
    return {part: (made_of[part].provenance, made_of[part].output) for part in _PARTS}, manifests


def _of_pipeline(store: Store, pipeline: str) -> _Chosen:
    """The parts that a pipeline's stages had last; the one made last where two are of a kind."""
    stages = [name.removesuffix(".json") for name in store.names(f"pipelines/{pipeline}")]
    if not stages:
        known = nearest(pipeline, store.names("pipelines"))
        raise PermanentError(f"no pipeline {pipeline!r} has made anything here; {known}")
    found: dict[str, tuple[float, str, str]] = {}
    manifests = [one for stage in stages if (one := latest(store, pipeline, stage))]
    for manifest in manifests:
        for name, output in manifest.outputs.items():
            candidate = (manifest.run.ended, manifest.provenance, name)
            found[output.kind] = max(found.get(output.kind, candidate), candidate)
    missing = [part for part, kind in _PARTS.items() if kind not in found]
    if missing:
        raise PermanentError(f"{pipeline} has not made its {', '.join(missing)} yet")
    return {part: found[kind][1:] for part, kind in _PARTS.items()}, manifests
