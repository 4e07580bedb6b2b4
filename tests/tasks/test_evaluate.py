"""An evaluation counts what is right, shows it, and never lets a ranker judge its own choice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from infra.demo_web.drawing import draw
from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import Evaluation, ImageShards, RankedCandidates
from schemas.fingerprint import code_digests
from schemas.scene import parse_caption
from tasks.candidates import CandidateSet, Prompt
from tasks.evaluate import EvaluateParams, evaluate
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_ranker,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

RED = "a large red circle on a white background"
GREEN = "a small green cross on black"
PAIR = "a red cross to the left of a green circle on grey"


def _picture(caption: str) -> np.ndarray:
    scene = parse_caption(caption)
    assert scene is not None
    return np.asarray(draw(scene, random.Random(0), 32)).transpose(2, 0, 1)


def _add_ranked(work: Work, ranker: str = "judge") -> RankedCandidates:
    """Of RED the first and third are right, of GREEN the second, of PAIR all but the first."""
    shown = {
        RED: [RED, GREEN, RED, PAIR],
        GREEN: [RED, GREEN, "a small green square on black", PAIR],
        PAIR: ["a green circle to the left of a red cross on grey", PAIR, PAIR, PAIR],
    }
    groups = {RED: "one", GREEN: "one", PAIR: "two"}
    pictures = np.stack([[_picture(text) for text in texts] for texts in shown.values()])
    drawn = CandidateSet(
        tuple(Prompt(text, groups[text], "combination") for text in shown),
        np.arange(12).reshape(3, 4), np.zeros((3, 4, 8, 8), np.int32), pictures,
    ).ranked(np.tile([0.9, 0.7, 0.5, 0.3], (3, 1)), ranker)  # fmt: skip
    path = work.scratch / "ranked-00000.safetensors"
    drawn.write(path)
    return RankedCandidates(units=(work.add(path, path.name),))


def _evaluate(work: Work, images: ImageShards | None = None, **given: Any) -> Evaluation:
    params = EvaluateParams.model_validate({"originals": 16, **given.pop("params", {})})
    return evaluate(
        ranked=given.pop("ranked", None) or _add_ranked(work), images=images or add_shards(work),
        image_tokenizer=add_image_tokenizer(work), params=params, work=work, **given,
    )  # fmt: skip


def _read(work: Work, found: Evaluation, name: str) -> Any:
    return json.loads(work.fetch(next(u for u in found.units if u.name == name)).read_text())


def test_a_checker_counts_what_is_right(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    found = _evaluate(work, params={"checker": "shapes"})
    measured = _read(work, found, "metrics.json")
    metrics = measured["metrics"]
    expected = {
        "one/right": 1 / 2, "one/right_average": 3 / 8, "one/right_any": 1.0,
        "one/colour": 1 / 2, "one/shape": 1 / 2, "one/size": 1 / 2,
        "one/right_best_of_1": 3 / 8, "one/right_best_of_4": 1 / 2,
        "two/right": 0.0, "two/right_average": 3 / 4, "two/colour": 1.0, "two/shape": 1.0,
        "two/relation": 0.0, "checker/originals/right": 1.0,
    }  # fmt: skip
    assert {name: metrics.get(name) for name in expected} == pytest.approx(expected)
    assert metrics["checker/reconstructions/right"] < 0.2  # of a tokenizer that knows nothing
    assert 0 < metrics["codebook/use"] <= 1
    assert metrics["reconstruction/psnr"] > 0
    assert measured["evaluator"]["name"] == "checker:shapes"
    assert measured["ranker"] == "judge"
    assert measured["curves"]["two: right"] == {"1": 0.75, "2": 0.5, "4": 0.0}
    assert {entry["name"] for entry in work.metrics()} == set(metrics)


def test_each_prompt_is_in_the_table_with_its_nearest_caption(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    found = _evaluate(work, params={"checker": "shapes"})
    rows = {row["prompt"]: row for row in _read(work, found, "prompts.json")}
    assert set(rows) == {RED, GREEN, PAIR}
    verdicts = [verdict["right"] for verdict in rows[GREEN]["verdicts"]]
    assert verdicts == [False, True, False, False]
    assert rows[GREEN]["why"] == "combination"
    assert rows[GREEN]["seeds"] == [4, 5, 6, 7]
    assert rows[GREEN]["nearest_distance"] > 0
    assert parse_caption(rows[GREEN]["nearest_caption"])


def test_the_sheets_are_pictures(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    found = _evaluate(work, params={"checker": "shapes"})
    sheets = {unit.name: work.fetch(unit) for unit in found.units if unit.name.endswith(".png")}
    assert set(sheets) == {
        "candidates-one.png", "candidates-two.png", "reconstructions.png", "best_of_n.png",
        "score_of_n.png",
    }  # fmt: skip
    for path in sheets.values():
        with Image.open(path) as image:
            image.verify()


def test_the_same_pictures_give_the_same_evaluation(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    first, second = (_evaluate(work, params={"checker": "shapes"}) for _ in range(2))
    assert first.digest == second.digest


def test_another_ranker_judges_where_there_is_no_checker(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    tokenizer = add_text_tokenizer(work)
    evaluator = add_ranker(work, vocabulary_of(work, tokenizer), seed=5)
    found = _evaluate(work, text_tokenizer=tokenizer, evaluator=evaluator)
    measured = _read(work, found, "metrics.json")
    assert measured["evaluator"] == {"name": "ranker:clip", "digest": evaluator.digest}
    metrics = measured["metrics"]
    assert metrics["clip_score/evaluator"] >= 0
    assert 1 <= metrics["one/own_caption_rank"] <= 3
    ranks = [row["own_caption_ranks"] for row in _read(work, found, "prompts.json")]
    assert metrics["one/own_caption_first"] == np.mean([row[0] == 1 for row in ranks[:2]])


def test_the_rankers_own_scores_are_shown_against_the_number_of_candidates(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    measured = _read(work, _evaluate(work), "metrics.json")
    points = {"1": 0.6, "2": (0.9 * 3 + 0.7 * 2 + 0.5) / 6, "4": 0.9}
    assert measured["scores"]["one"] == pytest.approx(points)
    assert measured["scores"]["two"] == pytest.approx(points)
    assert measured["metrics"]["two/score_best_of_2"] == pytest.approx(points["2"])
    assert measured["metrics"]["clip_score/ranker"] == pytest.approx(90)
    assert measured["metrics"]["clip_score/ranker_average"] == pytest.approx(60)


def test_the_ranker_that_chose_may_not_judge(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    tokenizer = add_text_tokenizer(work)
    ranker = add_ranker(work, vocabulary_of(work, tokenizer))
    ranked = _add_ranked(work, ranker.digest)
    with pytest.raises(PermanentError, match="it is the ranker that chose the pictures"):
        _evaluate(work, ranked=ranked, text_tokenizer=tokenizer, evaluator=ranker)


def test_an_unknown_checker_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="no checker 'shape'; did you mean 'shapes'"):
        EvaluateParams(checker="shape")


def test_only_the_chosen_checker_is_part_of_the_code() -> None:
    with_checker, without = (
        set(code_digests(["tasks.evaluate", *EvaluateParams(checker=name).modules()]))
        for name in ("shapes", None)
    )
    assert "tasks.checkers.shapes" in with_checker
    assert "tasks.checkers.shapes" not in without
