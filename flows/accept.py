"""Adopt an artifact under a new fingerprint, when an edit is known not to change results."""

from __future__ import annotations

from flows.declaration import BoundPipeline
from flows.stage_runner import StageRunner, references
from infra.errors import PermanentError
from infra.manifests import latest
from schemas.manifest import Accepted, InputRef, Manifest


def accept_stage(pipeline: BoundPipeline, name: str, because: str, runner: StageRunner) -> Manifest:
    """Publish the stage's latest outputs under the fingerprint that it has now.

    Raises:
        PermanentError: if there is nothing to adopt, no reason, or an input is not made.
    """
    if not because.strip():
        raise PermanentError("--because must say why the edit does not change the result")
    stage = pipeline.until(name).stages[name]
    before = latest(runner.store, runner.pipeline, name)
    if before is None:
        raise PermanentError(f"{pipeline.name}/{name} was never made: there is nothing to adopt")
    identity, present = runner.find(stage, _inputs(pipeline, name, runner))
    if present:
        raise PermanentError(f"{pipeline.name}/{name} is cached already: there is nothing to adopt")
    manifest = before.model_copy(
        update={
            "identity": identity,
            "fingerprint": identity.fingerprint,
            "inputs": _inputs(pipeline, name, runner),
            "accepted": Accepted(because=because, instead_of=before.provenance),
        }
    )
    return runner.publish(stage, manifest)


def _inputs(pipeline: BoundPipeline, name: str, runner: StageRunner) -> dict[str, InputRef]:
    found = {}
    for argument, link in pipeline.stages[name].inputs.items():
        manifest = latest(runner.store, runner.pipeline, link.stage)
        if manifest is None or link.output not in manifest.outputs:
            raise PermanentError(f"its input {link.stage}.{link.output} is not made yet")
        found[argument] = references(manifest)[link.output]
    return found
