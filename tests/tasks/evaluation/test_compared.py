"""Drawn pictures are compared with real ones, on whose features and how many of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import PermanentError
from tasks.evaluation.distances import fid
from tasks.evaluation.features import blurred
from tasks.prepared import first_pictures
from tests.tasks.evaluation.worlds import World, add_ranker


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


def test_the_same_pictures_give_the_same_figures_and_no_work(world: World) -> None:
    declared = {"radii": [0, 1], "drawn": 30}
    first = world.evaluate(comparison=declared)[1]
    before = world.work.made
    assert world.evaluate(comparison=declared)[1].digest == first.digest
    # All figures are found again; only the files of the evaluation itself are written.
    assert world.work.made - before == len(first.units) + 1  # and a tokenizer of the test


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
    other = add_ranker(world.work, seed=5)
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
