"""Drawn pictures are compared with real ones, with and without those that were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.errors import PermanentError
from infra.shards import read_shard, write_shard
from infra.sources import resolve_sources
from infra.work import Work
from model_zoo.weights import build_recipe, save_network
from schemas.artifact import Evaluation, EvaluationPairs, ImageShards, RankedCandidates, Ranker
from tasks.candidates import CandidateSet, Prompt, read_candidates
from tasks.devices import steady_threads
from tasks.evaluate import EvaluateParams, evaluate
from tasks.evaluation.distances import fid
from tasks.evaluation.features import blurred
from tasks.judging import Judge
from tasks.prepared import first_pictures
from tests.tasks.tiny_models import (
    TEXT_LENGTH,
    add_image_tokenizer,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

FEATURES = 8


def _ranker(work: Work, seed: int = 2) -> Ranker:
    """A ranker of few features: a Fréchet distance needs more pictures than features."""
    config = {
        "text_vocabulary": vocabulary_of(work, add_text_tokenizer(work)), "features": FEATURES,
        "text_length": TEXT_LENGTH, "resolution": 32,
    }  # fmt: skip
    torch.manual_seed(seed)
    path = work.scratch / f"ranker-{seed}.safetensors"
    save_network(path, build_recipe("clip", config).network, "clip", config)
    return Ranker(units=(work.add(path, path.name),))


def _pairs(work: Work, images: ImageShards, shared: int, own: int) -> EvaluationPairs:
    """`shared` pairs that are trained on, and `own` that are not."""
    trained = [s for unit in images.units for s in read_shard(work.fetch(unit))][:shared]
    others = add_shards(work, shards=3, pictures=own).units[2]  # the first two are trained on
    samples = [*trained, *read_shard(work.fetch(others))]
    path = work.scratch / "pairs.tar"
    write_shard(path, sorted(samples, key=lambda sample: sample.key))
    return EvaluationPairs(units=(work.add(path, path.name, len(samples)),))


def _ranked(work: Work, images: ImageShards, ranker: str, captions: list[str]) -> RankedCandidates:
    """Four candidates for each caption: pictures of the training set, blurred."""
    pictures, _ = first_pictures([work.fetch(unit) for unit in images.units], 32, 24)
    units = []
    for number in range(2):
        texts = captions[number::2]
        chosen = np.random.default_rng(number).integers(0, 24, (len(texts), 4))
        drawn = blurred(pictures, 1 + number)[chosen]
        scores = np.random.default_rng(number).uniform(size=(len(texts), 4))
        made = CandidateSet(
            tuple(Prompt(text, "captions") for text in texts),
            np.zeros((len(texts), 4), np.int64), np.zeros((len(texts), 4, 8, 8), np.int32), drawn,
        ).ranked(scores, ranker)  # fmt: skip
        path = work.scratch / f"ranked-{number}.safetensors"
        made.write(path)
        units.append(work.add(path, path.name))
    return RankedCandidates(units=tuple(units))


class World:
    """A training set of 24, a set to evaluate on of 12 of which 5 are trained on, and drawings."""

    def __init__(self, folder: Path, sources: tuple[str, ...] = ()) -> None:
        self.work = Work.local(folder)
        if sources:
            resolved = resolve_sources(sources, self.work.environment)
            self.work = Work.local(folder, sources=resolved)
        self.images = add_shards(self.work)
        self.pairs = _pairs(self.work, self.images, 5, 15)
        self.samples = list(read_shard(self.work.fetch(self.pairs.units[0])))
        self.ranker = _ranker(self.work)
        captions = list(dict.fromkeys(sample.caption for sample in self.samples))
        self.ranked = _ranked(self.work, self.images, self.ranker.digest, captions)
        self.text_tokenizer = add_text_tokenizer(self.work)

    def evaluate(self, **given: Any) -> tuple[dict[str, Any], Evaluation]:
        """What `metrics.json` says."""
        params = {"originals": 16, "comparison": given.pop("comparison", {})}
        inputs = {"ranker": self.ranker, "text_tokenizer": self.text_tokenizer, **given}
        found = evaluate(
            ranked=self.ranked, images=self.images, work=self.work,
            image_tokenizer=add_image_tokenizer(self.work),
            params=EvaluateParams.model_validate(params), **inputs,
        )  # fmt: skip
        return json.loads(self.file(found, "metrics.json").read_text()), found

    def file(self, found: Evaluation, name: str) -> Path:
        return self.work.fetch(next(unit for unit in found.units if unit.name == name))

    def overlaps(self, found: Evaluation) -> list[dict[str, Any]]:
        """The lines of `overlap.jsonl`."""
        return [json.loads(s) for s in self.file(found, "overlap.jsonl").read_text().splitlines()]

    def features(self, pictures: np.ndarray) -> np.ndarray:
        tokenizer = self.work.fetch(self.text_tokenizer.units[0])
        with steady_threads():
            return Judge(self.work.fetch(self.ranker.units[0]), tokenizer).images(pictures)

    def drawn(self) -> np.ndarray:
        sets = [read_candidates(self.work.fetch(unit)) for unit in self.ranked.units]
        return np.concatenate([one.pictures.reshape(-1, 3, 32, 32) for one in sets])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_distances_are_those_of_blurred_pictures_on_the_rankers_features(world: World) -> None:
    measured, found = world.evaluate(comparison={"radii": [0, 1, 2]})
    metrics = measured["metrics"]
    shards = [world.work.fetch(unit) for unit in world.images.units]
    real, _ = first_pictures(shards, 32, 16)
    for radius in (0, 1, 2):
        sides = [world.features(blurred(one, radius)) for one in (world.drawn(), real)]
        expected = fid(*sides)["fid"]
        assert metrics[f"fid/ranker/blur_{radius}"] == pytest.approx(expected, rel=1e-4)
        assert 0 <= metrics[f"precision/ranker/blur_{radius}"] <= 1
        assert 0 <= metrics[f"recall/ranker/blur_{radius}"] <= 1
        assert metrics[f"rfid/ranker/blur_{radius}"] > 0
    assert not any("inception" in name for name in metrics)
    assert -100 <= metrics["clip_score/ranker/real"] <= 100
    said = measured["comparison"]
    assert said["drawn pictures"] == len(world.drawn())
    assert said["real pictures"] == 16
    assert said["real pictures are"] == "training pictures"
    assert said["radii of blur, in pixels"] == [0, 1, 2]
    assert said["weights of ranker"] == world.ranker.units[0].sha256
    assert "distance_by_blur-ranker.png" in {unit.name for unit in found.units}


def test_best_ranked_pictures_are_compared_where_that_is_declared(world: World) -> None:
    measured, _ = world.evaluate(comparison={"of_each": 1})
    assert measured["comparison"]["drawn pictures"] == len(world.drawn()) / 4
    again, _ = world.evaluate(comparison={"of_each": 2, "drawn": 12, "seed": 3})
    assert again["comparison"]["drawn pictures"] == 12
    assert again["comparison"]["seed of the choice of drawn pictures"] == 3


def test_pictures_that_were_trained_on_are_found_and_left_out(world: World) -> None:
    measured, found = world.evaluate(comparison={"overlap": 0.999999}, reference=world.pairs)
    metrics, said = measured["metrics"], measured["comparison"]
    assert metrics["overlap/ranker/count"] == 5
    assert metrics["overlap/ranker/share"] == 5 / 20
    assert said["real pictures"] == 20
    assert said["real pictures are"] == "a set to evaluate on"
    trained = {s.key for u in world.images.units for s in read_shard(world.work.fetch(u))}
    kept = [sample for sample in world.samples if sample.key not in trained]
    drawn, left = said["drawn, real pictures without overlap"]
    assert left == len(kept) == 15
    assert drawn == 4 * len({sample.caption for sample in kept})
    both = [metrics[f"fid/ranker/{subset}blur_0"] for subset in ("", "without_overlap/")]
    assert both[0] != both[1]
    rows = world.overlaps(found)
    assert {row["key"] for row in rows if row["overlaps"]} == trained & {r["key"] for r in rows}
    assert all(row["nearest_training_key"] == row["key"] for row in rows[:5])
    assert "overlap.png" in {unit.name for unit in found.units}


def test_the_nearest_training_picture_is_that_of_all_pairs(world: World) -> None:
    _, found = world.evaluate(comparison={"overlap": 1}, reference=world.pairs)
    shards = [world.work.fetch(unit) for unit in world.images.units]
    training, _ = first_pictures(shards, 32, 24)
    asked, _ = first_pictures([world.work.fetch(world.pairs.units[0])], 32, 20)
    cosines = world.features(asked) @ world.features(training).T
    rows = {row["key"]: row for row in world.overlaps(found)}
    keys = [sample.key for path in shards for sample in read_shard(path)]
    for sample, row in zip(world.samples, cosines, strict=True):
        said = rows[sample.key]
        assert said["cosine"] == pytest.approx(row.max(), abs=2e-6)
        assert row[keys.index(said["nearest_training_key"])] == pytest.approx(row.max(), abs=2e-6)


def test_the_same_pictures_give_the_same_figures_and_no_work(world: World) -> None:
    declared = {"radii": [0, 1], "drawn": 30}
    first = world.evaluate(comparison=declared)[1]
    before = world.work.made
    assert world.evaluate(comparison=declared)[1].digest == first.digest
    # All figures are found again; only the files of the evaluation itself are written.
    assert world.work.made - before == len(first.units) + 1  # and a tokenizer of the test


def test_a_threshold_that_leaves_nothing_is_refused(world: World) -> None:
    with pytest.raises(PermanentError, match=r"cosine of 0\.001 on 20 of 20 real pictures overlap"):
        world.evaluate(comparison={"overlap": 0.001}, reference=world.pairs)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"drawn": 8}, "8 pictures on a side, and 8 features each: .* 9 or more"),
        ({"overlap": 0.9}, "all overlap; give a set to evaluate on as the input `reference`"),
        ({"neighbours": 16}, "neighbours: 16, of 16 pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    world: World, comparison: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        world.evaluate(comparison=comparison)


def test_features_come_from_the_ranker_that_chose_or_from_another_by_its_name(
    world: World,
) -> None:
    other = _ranker(world.work, seed=5)
    with pytest.raises(PermanentError, match=f"ranker: it is {other.digest}, but the pictures"):
        world.evaluate(ranker=other)
    with pytest.raises(PermanentError, match="no features to compare on; give `ranker`"):
        world.evaluate(ranker=None)
    with pytest.raises(PermanentError, match="text_tokenizer: ranker reads captions"):
        world.evaluate(text_tokenizer=None)
    metrics = world.evaluate(ranker=None, evaluator=other)[0]["metrics"]
    assert "fid/evaluator/blur_0" in metrics
    assert "fid/ranker/blur_0" not in metrics
    assert metrics["clip_score/evaluator_average"] <= 100


def test_too_few_pictures_for_inception_are_refused_before_its_features_are_made(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"never opened")
    world = World(tmp_path / "home", (str(weights),))
    with pytest.raises(PermanentError, match="16 pictures on a side, and 2048 features"):
        world.evaluate(comparison={"inception": str(weights)})
