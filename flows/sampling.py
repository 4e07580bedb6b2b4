"""Find the files of a model, registered or a pipeline's own, and draw with them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.lineage import Manifests, input_of, latest_of, made_from, output_of
from infra.environment import Environment
from infra.errors import PermanentError
from infra.manifests import read_manifest
from infra.store import Store
from schemas.artifact import (
    Candidates,
    ImageTokenizer,
    Prior,
    RankedCandidates,
    Ranker,
    TextTokenizer,
)  # fmt: skip
from schemas.manifest import InputRef, Manifest
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
_Part = tuple[str, str]
_Chosen = tuple[dict[str, _Part], Sequence[Manifest]]


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
        PermanentError: if there is no such model, or its parts were not made for one another.
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
    files = ModelFiles(**paths, cache_gb=_cache_gb(manifests))
    return files.sampled_as(sampling_of(manifests))


def _cache_gb(manifests: Sequence[Manifest]) -> float | None:
    """The memory that was declared for drawing; None before it could be."""
    found = (one.params.get("cache_gb") for one in manifests if output_of(one, Candidates.kind))
    return next(found, None)


def _registered(store: Store, environment: Environment, model: str) -> _Chosen:
    from infra.trace import Reference, chain, resolve

    reference = resolve(store, model, environment.tracking_uri)
    assert reference.model is not None, "a models:/ reference names a model"
    made_of = reference.model.registration.made_of
    evaluated = made_of["evaluation"].provenance
    manifests = chain(store, Reference(evaluated, (evaluated,))).manifests
    return {part: (made_of[part].provenance, made_of[part].output) for part in _PARTS}, manifests


def _of_pipeline(store: Store, pipeline: str) -> _Chosen:
    """The newest prior of a pipeline, and the parts that it was made, drawn from and ranked with.

    What its stages have made since, for a prior that is not there yet, is left alone.
    """
    manifests = latest_of(pipeline, store)
    if not manifests:
        known = nearest(pipeline, store.names("pipelines"))
        raise PermanentError(f"no pipeline {pipeline!r} has made anything here; {known}")
    missing = [part for part, kind in _PARTS.items() if made_from(manifests, kind) is None]
    prior = made_from(manifests, Prior.kind)
    if missing or prior is None:
        raise PermanentError(f"{pipeline} has not made its {', '.join(missing)} yet")
    drawn = made_from(manifests, Candidates.kind, prior)
    image_tokenizer = _part_of(prior, drawn, ImageTokenizer.kind)
    text_tokenizer = _part_of(prior, drawn, TextTokenizer.kind)
    parts = {
        "prior": (prior.provenance, str(output_of(prior, Prior.kind))),
        "image_tokenizer": (image_tokenizer.provenance, image_tokenizer.output),
        "text_tokenizer": (text_tokenizer.provenance, text_tokenizer.output),
        "ranker": _ranker(store, pipeline, manifests, drawn, text_tokenizer),
    }
    sampled = drawn or made_from(manifests, Candidates.kind)
    return parts, [sampled] if sampled else []


def _part_of(prior: Manifest, drawn: Manifest | None, kind: str) -> InputRef:
    """What a prior was drawn from with, or else was trained with."""
    found = (drawn and input_of(drawn, kind)) or input_of(prior, kind)
    if found is None:
        raise PermanentError(
            f"{prior.pipeline}/{prior.stage} was made without any {kind}, and nothing was drawn"
            " from it; run the pipeline up to its samples"
        )
    return found


def _ranker(
    store: Store, pipeline: str, manifests: Manifests, drawn: Manifest | None, text: InputRef
) -> _Part:
    """The ranker that ranked what was drawn; before that, the one of the stage that ranked last.

    Raises:
        PermanentError: if none of several has ranked, or it reads other tokens than the prior.
    """
    ranked = drawn and made_from(manifests, RankedCandidates.kind, drawn)
    used = input_of(ranked, Ranker.kind) if ranked else None
    part = (used.provenance, used.output) if used else _next_ranker(pipeline, manifests)
    made = read_manifest(store, part[0])
    reads = input_of(made, TextTokenizer.kind) if made else None
    if made and reads and reads.digest != text.digest:
        raise PermanentError(
            f"{pipeline}/{made.stage} was trained with text_tokenizer {reads.digest[:12]}…, but the"
            f" prior draws with {text.digest[:12]}…; run the pipeline up to the stage that ranks"
        )
    return part


def _next_ranker(pipeline: str, manifests: Manifests) -> _Part:
    """What will rank, as far as it is known from what did."""
    made = {stage: one for stage, one in manifests.items() if output_of(one, Ranker.kind)}
    before = made_from(manifests, RankedCandidates.kind)
    declared = input_of(before, Ranker.kind) if before else None
    if declared is not None and declared.stage in made:
        made = {declared.stage: made[declared.stage]}
    if len(made) > 1:
        raise PermanentError(
            f"{pipeline} has several rankers, of the stages {', '.join(sorted(made))}, and has"
            " ranked nothing yet; run it up to the stage that ranks"
        )
    (ranker,) = made.values()
    return ranker.provenance, str(output_of(ranker, Ranker.kind))
