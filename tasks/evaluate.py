"""Evaluate drawn pictures and the codes they are made of: metrics, sheets, a table of prompts.

Where the declaration names a checker, it judges every picture, and its own accuracy on training
pictures and on their reconstructions is measured beside, so that its word can be weighed. Another
ranker, which must not be the one that chose the pictures, may judge as well, or instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.weights import read_header
from schemas.artifact import (
    Evaluation,
    ImageShards,
    ImageTokenizer,
    RankedCandidates,
    Ranker,
    TextTokenizer,
)  # fmt: skip
from schemas.pipeline import nearest
from schemas.stage import stage
from tasks.candidates import CandidateSet, by_group, read_candidates
from tasks.devices import steady_threads
from tasks.evaluation.checked import Checker
from tasks.evaluation.findings import Findings
from tasks.evaluation.originals import Reconstructed, reconstruct
from tasks.evaluation.shown import draw_sheets
from tasks.judging import Judge
from tasks.measures import NearestCaption
from tasks.networks import NetworkParams
from tasks.prepared import captions_of, first_pictures

_CHECKERS = Path(__file__).with_name("checkers")


class EvaluateParams(NetworkParams):
    """Who judges, and how much is looked at."""

    networks: tuple[str, ...] = ("dvae", "clip")
    checker: str | None = None
    """Module of `tasks.checkers`."""
    originals: int = Field(default=512, ge=2)
    """Training pictures that are reconstructed, checked and compared with."""
    shown_candidates: int = Field(default=8, gt=0)

    @field_validator("checker")
    @classmethod
    def _is_there(cls, checker: str | None) -> str | None:
        known = [path.stem for path in _CHECKERS.glob("[!_]*.py")]
        if checker is not None and checker not in known:
            raise ValueError(f"there is no checker {checker!r}; {nearest(checker, known)}")
        return checker

    def modules(self) -> tuple[str, ...]:
        """The networks and the checker."""
        checkers = (f"tasks.checkers.{self.checker}",) if self.checker else ()
        return (*super().modules(), *checkers)


@stage(retries=2, cores=1, memory_gb=2.0, versions=("torch", "numpy", "scipy", "pillow"))
def evaluate(
    ranked: RankedCandidates, images: ImageShards, image_tokenizer: ImageTokenizer,
    params: EvaluateParams, work: Work, text_tokenizer: TextTokenizer | None = None,
    evaluator: Ranker | None = None,
) -> Evaluation:  # fmt: skip
    """Measure and show; `metrics.json` says by whom, and whose ranking it was."""
    sets = [read_candidates(work.fetch(unit)) for unit in ranked.units]
    ranker = _one_ranker(sets)
    with steady_threads():
        originals = _reconstruct(images, image_tokenizer, params, work)
        findings = Findings(by_group(sets), originals, originals.metrics())
        if evaluator is not None:
            judge = _other_judge(evaluator, text_tokenizer, ranker, params, work)
            findings.judge_by_ranker(judge, evaluator.digest)
    if params.checker is not None:
        findings.judge_by_checker(Checker(params.checker))
    captions = captions_of(work.fetch(unit) for unit in images.units)
    table = findings.table(NearestCaption(captions))
    for name, value in findings.metrics.items():
        work.metric(name, value)
    texts = {
        "metrics.json": {
            "metrics": findings.metrics, "evaluator": findings.evaluator, "ranker": ranker,
            "curves": findings.curves,
        },
        "prompts.json": table,
    }  # fmt: skip
    paths = [_write_json(work.scratch / name, value) for name, value in texts.items()]
    paths += draw_sheets(findings, table, params.shown_candidates, work.scratch)
    return Evaluation(units=tuple(work.add(path, path.name) for path in paths))


def _one_ranker(sets: Sequence[CandidateSet]) -> str:
    rankers = sorted({str(one.ranker) for one in sets if one.ranker})
    if len(rankers) != 1:
        raise PermanentError(f"ranked: the candidates are ranked by {rankers}, not by one ranker")
    return rankers[0]


def _reconstruct(
    images: ImageShards, image_tokenizer: ImageTokenizer, params: EvaluateParams, work: Work
) -> Reconstructed:
    path = params.check(work.fetch(image_tokenizer.units[0]))
    side = int(read_header(path)[1]["resolution"])
    shards = (work.fetch(unit) for unit in images.units)
    pictures, captions = first_pictures(shards, side, params.originals)
    return reconstruct(path, pictures, captions)


def _other_judge(
    evaluator: Ranker, text_tokenizer: TextTokenizer | None, ranker: str, params: EvaluateParams,
    work: Work,
) -> Judge:  # fmt: skip
    if evaluator.digest == ranker:
        raise PermanentError(
            "evaluator: it is the ranker that chose the pictures, so it cannot judge them;"
            " train another with another seed"
        )
    if text_tokenizer is None:
        raise PermanentError("text_tokenizer: an evaluator reads prompts, so it needs this input")
    path = params.check(work.fetch(evaluator.units[0]))
    return Judge(path, work.fetch(text_tokenizer.units[0]))


def _write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    return path
