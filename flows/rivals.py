"""The part of a report that shows a model beside the champion that it has to beat.

The rival's pictures are those that its own evaluation looked at: they lie in the store, and an
unchanged declaration draws the same prompts with the same seeds, so nothing is drawn for a report.
Where prompts or seeds differ, the report says so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from flows.declaration import BoundPipeline, BoundStage
from flows.stage_runner import references
from infra.environment import Environment
from infra.errors import DamagedUnit, PermanentError
from infra.manifests import read_manifest
from infra.report.content import Contest, Picture, Table, Versus
from infra.store import Store
from schemas.artifact import RankedCandidates
from schemas.manifest import InputRef, Manifest
from tasks.evaluation.side_by_side import (
    Difference,
    Key,
    Shown,
    common,
    differences,
    same_seeds,
)

if TYPE_CHECKING:
    from infra.lineage.registration import Registration

_PROMPTS = 6  # of each group are shown, the first ones
_PICTURES = 3  # of each prompt and model
_COLUMNS = ("group", "measure", "prompts", "this model", "rival", "difference", "95 % interval")


def contests(
    pipeline: BoundPipeline, manifests: Mapping[str, Manifest], store: Store,
    environment: Environment, folder: Path,
) -> Iterator[Contest]:  # fmt: skip
    """For each model that the pipeline registers: beside the champion, if that is another."""
    for stage in pipeline.stages.values():
        made_of = _made_of(stage, manifests)
        if stage.spec.name != "register_model" or made_of is None:
            continue
        name = str(stage.params.model_dump()["name"])
        if store.names(f"effects/{name}"):  # opening MLflow takes two seconds
            yield from _contest(name, made_of, store, environment, folder)


def _contest(
    name: str, made_of: Mapping[str, InputRef], store: Store, environment: Environment,
    folder: Path,
) -> Iterator[Contest]:  # fmt: skip
    from infra.lineage.registry import Registry

    try:
        rival = Registry(environment.tracking_uri, store).rival(name, made_of)
        if rival is None:
            return
        ours = _shown(made_of["evaluation"].provenance, store, folder)
        theirs = _shown(rival.made_of["evaluation"].provenance, store, folder)
    except (PermanentError, DamagedUnit) as error:
        yield Contest(name, note=f"The champion cannot be shown beside this model: {error}.")
        return
    yield Contest(
        name, _note(rival, ours, theirs), _table(differences(ours, theirs)),
        tuple(_versus(key, ours, theirs) for key in _chosen(common(ours, theirs))),
    )  # fmt: skip


def _made_of(stage: BoundStage, manifests: Mapping[str, Manifest]) -> dict[str, InputRef] | None:
    """What a stage takes, if all of it is made."""
    links = stage.inputs.items()
    if any(link.stage not in manifests for _, link in links):
        return None
    return {name: references(manifests[link.stage])[link.output] for name, link in links}


def _shown(evaluation: str, store: Store, folder: Path) -> Shown:
    judged = _manifest(evaluation, store)
    ranked = next((r for r in judged.inputs.values() if r.kind == RankedCandidates.kind), None)
    if ranked is None:
        raise PermanentError(f"evaluation {evaluation[:12]}… has no ranked pictures")
    drawn = _manifest(ranked.provenance, store).outputs[ranked.output]
    (output,) = judged.outputs.values()
    files = {unit.name: unit for unit in output.units}

    def read(name: str) -> Any:
        if name not in files:
            raise PermanentError(f"evaluation {evaluation[:12]}… has no {name}")
        return json.loads(store.fetch(files[name], folder).read_text())

    paths = (store.fetch(unit, folder) for unit in drawn.units)
    return Shown.read(paths, read("metrics.json"), read("prompts.json"))


def _manifest(provenance: str, store: Store) -> Manifest:
    found = read_manifest(store, provenance)
    if found is None:
        raise PermanentError(f"the manifest {provenance[:12]}… is gone or altered")
    return found


def _note(rival: Registration, ours: Shown, theirs: Shown) -> str:
    prompts, seeds = len(common(ours, theirs)), same_seeds(ours, theirs)
    if prompts == len(ours.candidates) == seeds:
        drawn = f"The same {prompts} prompts and the same seeds."
    else:
        drawn = (
            f"{prompts} of {len(ours.candidates)} prompts are the rival's as well, {seeds} of them"
            " drawn with the same seeds: the declared sampling has changed."
        )
    apart = []
    if ours.ranker != theirs.ranker:
        apart.append("rankers differ, so their scores have no scale in common")
    if ours.evaluator is None or ours.evaluator != theirs.evaluator:
        apart.append("no judge has looked at both")
    said = f" Not compared: {'; '.join(apart)}." if apart else ""
    return (
        f"The rival is the last champion of {rival.name} that is another model than this one"
        f" (chain {rival.chain[:12]}…). {drawn}{said}"
    )


def _table(found: Sequence[Difference]) -> Table:
    rows = tuple(
        (one.group.replace("_", " "), one.measure, str(one.prompts), f"{one.first:.3f}",
         f"{one.second:.3f}", f"{one.difference:+.3f}", _interval(one))
        for one in found
    )  # fmt: skip
    note = (
        "Positive differences are this model's. Intervals are over prompts: of shares Agresti and"
        " Min's, of means Student's; one that holds 0 says that the prompts are too few to tell."
    )
    return Table("This model less its rival, by group", _COLUMNS, rows, note)


def _interval(one: Difference) -> str:
    return "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"


def _chosen(keys: Sequence[Key]) -> Iterator[Key]:
    """The first prompts of each group: not the best ones, and not the worst."""
    seen: dict[str, int] = {}
    for key in keys:
        seen[key[0]] = seen.get(key[0], 0) + 1
        if seen[key[0]] <= _PROMPTS:
            yield key


def _versus(key: Key, ours: Shown, theirs: Shown) -> Versus:
    return Versus(key[1], key[0].replace("_", " "), _pictures(ours, key), _pictures(theirs, key))


def _pictures(shown: Shown, key: Key) -> tuple[Picture, ...]:
    one = shown.candidates[key]
    columns = zip(one.pictures[:_PICTURES], one.scores, shown.right(key), strict=False)
    return tuple(Picture(_png(pixels), f"{score:.3f}", right) for pixels, score, right in columns)


def _png(pixels: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(target, "PNG")
    return target.getvalue()
