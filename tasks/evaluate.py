"""Evaluate drawn pictures and the codes they are made of: metrics, sheets, a table of prompts.

Where the declaration names a checker, it judges every picture, and its own accuracy on training
pictures and on their reconstructions is measured beside, so that its word can be weighed. Another
ranker, which must not be the one that chose the pictures, may judge as well, or instead. Where a
comparison is declared, drawn pictures are compared with real ones as sets: with those of a set to
evaluate on (`reference`), or else with training pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import (
    Evaluation,
    EvaluationPairs,
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
from tasks.evaluation.comparison import Comparison
from tasks.evaluation.findings import Findings
from tasks.evaluation.inputs import Inputs
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
    nearest_captions: int = Field(default=100_000, gt=0)
    """The first training captions, among which each prompt's nearest is looked for."""
    comparison: Comparison | None = None

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

    def sources(self) -> tuple[str, ...]:
        """Inception's weights, if they are declared."""
        return self.comparison.sources() if self.comparison else ()


_VERSIONS = ("torch", "torch-fidelity", "numpy", "scipy", "pillow")


@stage(retries=2, cores=2, memory_gb=2.0, versions=_VERSIONS)
def evaluate(
    ranked: RankedCandidates, images: ImageShards, image_tokenizer: ImageTokenizer,
    params: EvaluateParams, work: Work, text_tokenizer: TextTokenizer | None = None,
    evaluator: Ranker | None = None, ranker: Ranker | None = None,
    reference: EvaluationPairs | None = None,
) -> Evaluation:  # fmt: skip
    """Measure and show; `metrics.json` says by whom, and whose ranking it was.

    Args:
        evaluator: a ranker that has not chosen the pictures; it judges them.
        ranker: the one that has; pictures are compared on its features if no other is given.
        reference: real pictures to compare with, instead of training pictures.
    """
    inputs = Inputs(ranked, images, image_tokenizer, text_tokenizer, evaluator, ranker, reference)
    sets = [read_candidates(work.fetch(unit)) for unit in ranked.units]
    chosen_by = _one_ranker(sets)
    with steady_threads():
        originals = _reconstruct(inputs, params, work)
        findings = Findings(by_group(sets), originals, originals.metrics())
        if evaluator is not None:
            judge = _other_judge(evaluator, text_tokenizer, chosen_by, params, work)
            findings.judge_by_ranker(judge, evaluator.digest)
    findings.score()
    if params.comparison is not None:
        findings.add(inputs.compare(sets, chosen_by, params.comparison, params, work))
    if params.checker is not None:
        findings.judge_by_checker(Checker(params.checker))
    for name, value in findings.metrics.items():
        work.metric(name, value)
    paths = [*_write(findings, chosen_by, inputs, params, work)]
    return Evaluation(units=tuple(work.add(path, path.name) for path in paths))


def _write(
    findings: Findings, ranker: str, inputs: Inputs, params: EvaluateParams, work: Work
) -> Iterator[Path]:
    """All files of an evaluation."""
    captions = captions_of(work.fetch(unit) for unit in inputs.images.units)
    table = findings.table(NearestCaption(islice(captions, params.nearest_captions)))
    texts = {
        "metrics.json": {
            "metrics": findings.metrics, "evaluator": findings.evaluator, "ranker": ranker,
            "curves": findings.curves, "scores": findings.scores,
            "comparison": findings.compared.described,
        },
        "prompts.json": table,
    }  # fmt: skip
    for name, value in texts.items():
        yield _write_json(work.scratch / name, value)
    yield from draw_sheets(findings, table, params.shown_candidates, work.scratch)
    yield from inputs.show_overlap(findings.compared, work)


def _one_ranker(sets: Sequence[CandidateSet]) -> str:
    rankers = sorted({str(one.ranker) for one in sets if one.ranker})
    if len(rankers) != 1:
        raise PermanentError(f"ranked: the candidates are ranked by {rankers}, not by one ranker")
    return rankers[0]


def _reconstruct(inputs: Inputs, params: EvaluateParams, work: Work) -> Reconstructed:
    path = params.check(work.fetch(inputs.image_tokenizer.units[0]))
    shards = (work.fetch(unit) for unit in inputs.images.units)
    pictures, captions = first_pictures(shards, inputs.side(work), params.originals)
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
