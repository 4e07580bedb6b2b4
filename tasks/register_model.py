"""Register what was trained as a version of a model: candidate at once, champion by the gate.

An effect: it changes the registry, so it runs every time, and doing it again changes nothing. The
same chain of manifests is always the same version. The judge is the evaluator that the evaluation
names by digest, and never the ranker that chose the pictures: it would praise its own choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from infra.errors import PermanentError
from infra.lineage.model_folder import write_model_folder
from infra.lineage.registration import Evaluator, Gate, ModelName, Registration
from infra.lineage.registry import Registry
from infra.manifests import read_manifest
from infra.store import Store
from infra.trace import Reference, chain
from infra.work import Work
from schemas.artifact import Artifact, Evaluation, ImageTokenizer, Prior, Ranker, TextTokenizer
from schemas.manifest import Manifest
from schemas.stage import stage
from tasks.candidates import SAMPLING, sampling_of
from tasks.networks import NetworkParams

ARTIST = "tasks.drawing:Artist"
METRICS = "metrics.json"  # unit of an evaluation: metrics, evaluator, ranker
PARTS = ("prior", "image_tokenizer", "text_tokenizer", "ranker")  # what draws; see ModelFiles
DISTRIBUTIONS = (
    "matplotlib", "numpy", "open-clip-torch", "pillow", "pydantic", "safetensors", "tokenizers",
    "torch",
)  # fmt: skip


class RegisterParams(NetworkParams):
    """Under which name, and what a champion must reach."""

    networks: tuple[str, ...] = ("dalle", "dvae", "clip")
    name: ModelName
    metric: str
    """The metric of the evaluation that decides, such as `held_out/right`."""
    bound: float = Field(allow_inf_nan=False)
    higher_is_better: bool = True

    @property
    def gate(self) -> Gate:
        """The gate."""
        return Gate(metric=self.metric, bound=self.bound, higher_is_better=self.higher_is_better)


@stage(retries=2, effect=True)
def register_model(
    prior: Prior, image_tokenizer: ImageTokenizer, text_tokenizer: TextTokenizer, ranker: Ranker,
    evaluation: Evaluation, params: RegisterParams, work: Work,
) -> None:  # fmt: skip
    """Make the version, name it candidate, and champion if the gate holds."""
    parts = dict(zip(PARTS, (prior, image_tokenizer, text_tokenizer, ranker), strict=True))
    registry = Registry(work.environment.tracking_uri, work.store)
    registration = registry.recorded(params.name, work.inputs)
    if registration is None:
        measured = _read_evaluation(evaluation, work)
        _check_evaluation(measured, parts, work)
        registration = _registration(parts, measured, params, work)
    version = registry.register(registration)
    verdict = registry.promote(registration, params.gate)
    role = "champion" if verdict.champion else "candidate"
    work.message(f"{params.name} version {version} is {role}: {verdict.because}")
    work.metric("champion", float(verdict.champion))


def _read_evaluation(evaluation: Evaluation, work: Work) -> dict[str, Any]:
    found = [unit for unit in evaluation.units if unit.name == METRICS]
    if not found:
        names = ", ".join(unit.name for unit in evaluation.units) or "nothing"
        raise PermanentError(f"evaluation: it holds {names}, but no {METRICS}")
    measured: dict[str, Any] = json.loads(work.fetch(found[0]).read_text())
    return measured


def _check_evaluation(
    measured: Mapping[str, Any], parts: Mapping[str, Artifact], work: Work
) -> None:
    """Refuse an evaluation that is of another model, or by no independent judge."""
    evaluator, ranker = measured.get("evaluator"), parts["ranker"]
    if not evaluator:
        raise PermanentError(
            f"evaluation: {METRICS} names no evaluator; give `evaluate` a checker, or a ranker as"
            " its evaluator that has not chosen the pictures"
        )
    if measured.get("ranker") != ranker.digest:
        raise PermanentError(
            f"evaluation: its pictures were chosen by ranker {measured.get('ranker')}, but the"
            f" model to be registered has ranker {ranker.digest}"
        )
    own = {ranker.digest, *(unit.sha256 for unit in ranker.units)}
    if evaluator["digest"] in own:
        raise PermanentError(
            "evaluation: its evaluator is the ranker that chose the pictures; evaluate with a"
            " checker or another ranker"
        )
    known = _contents_behind(work.inputs["evaluation"].provenance, work.store)
    for name, part in parts.items():
        if part.digest not in known:
            raise PermanentError(
                f"evaluation: it is not of this {name} ({part.digest[:12]}…), but of other pictures"
            )


def _contents_behind(provenance: str, store: Store) -> set[str]:
    """Content digests of all outputs in the chain of a manifest."""
    manifests = _manifests_behind(provenance, store)
    return {output.digest for manifest in manifests for output in manifest.outputs.values()}


def _manifests_behind(provenance: str, store: Store) -> list[Manifest]:
    return list(chain(store, Reference(provenance, (provenance,))).manifests)


def _registration(
    parts: Mapping[str, Artifact], measured: Mapping[str, Any], params: RegisterParams, work: Work
) -> Registration:
    weights = {_file_name(name, part): _file(part, params, work) for name, part in parts.items()}
    weights[SAMPLING] = work.scratch / SAMPLING
    drawn = sampling_of(_manifests_behind(work.inputs["evaluation"].provenance, work.store))
    weights[SAMPLING].write_text(json.dumps(drawn, indent=1))
    files = write_model_folder(
        work.scratch / "model", weights, ARTIST, params.modules(), DISTRIBUTIONS
    )
    made_by = read_manifest(work.store, work.inputs["prior"].provenance)
    if made_by is None:
        raise PermanentError("prior: its manifest is gone or altered; run the pipeline again")
    return Registration(
        name=params.name,
        pipeline=made_by.pipeline,
        made_of=work.inputs,
        drawn_by=PARTS,
        files={path: work.store.put(file, file.name) for path, file in files.items()},
        metrics={k: float(v) for k, v in measured["metrics"].items() if _is_finite(v)},
        evaluator=Evaluator(**measured["evaluator"]),
    )


def _file_name(name: str, part: Artifact) -> str:
    return name + Path(part.units[0].name).suffix


def _file(part: Artifact, params: RegisterParams, work: Work) -> Path:
    path = work.fetch(part.units[0])
    return params.check(path) if path.suffix == ".safetensors" else path


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
