"""Pictures to evaluate on that were trained on are found by features and by hash, and left out."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infra.demo_web.drawing import draw, random_scene
from infra.errors import PermanentError
from infra.shards import Sample
from schemas.artifact import EvaluationPairs, ImageShards
from tasks.dedup.picture_hash import hash_picture, thumbnail_of
from tasks.pictures import decode
from tasks.prepared import first_pictures
from tests.tasks.evaluation.worlds import World, add_pairs

COPIES = 4  # training pictures that are in the set, but as other files


def _again(sample: Sample) -> Sample:
    """The same picture, enlarged and compressed, under another key."""
    content = io.BytesIO()
    larger = decode(sample.image).resize((96, 96), Image.Resampling.LANCZOS)
    larger.save(content, "JPEG", quality=70)
    key = hashlib.sha256(f"again {sample.key}".encode()).hexdigest()[:32]
    return Sample(key, content.getvalue(), "jpg", sample.caption)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def copied(world: World) -> EvaluationPairs:
    """The world's pairs, of which 5 are trained on, and copies of training pictures, in shards."""
    copies = [_again(sample) for sample in world.trained()[-COPIES:]]
    return add_pairs([*world.samples, *copies], world.work, shards=3)


def _compared(sample: Sample) -> tuple[int, list[int]]:
    """The hash and the thumbnail."""
    picture = decode(sample.image)
    return int.from_bytes(hash_picture(picture)), list(thumbnail_of(picture))


def _nearest(asked: list[Sample], known: list[Sample], bound: int) -> dict[str, dict[str, Any]]:
    """By key what is said of each, by comparing all with all as the docs have it."""
    named = [(sample.key, *_compared(sample)) for sample in known]
    rows = {}
    for sample in asked:
        value, thumbnail = _compared(sample)
        others = []
        for key, other, cells in named:
            apart = [abs(a - b) for a, b in zip(thumbnail, cells, strict=True)]
            others.append(((value ^ other).bit_count(), key, sum(apart) / len(apart), max(apart)))
        same = [one for one in others if one[0] <= bound and one[2] <= 2.5 and one[3] <= 36]
        bits, key, mean, most = min(same or others)
        rows[sample.key] = {
            "key": sample.key, "overlaps": bool(same), "nearest_training_key_by_hash": key,
            "bits": bits, "mean_difference": round(mean, 6), "most_difference": most,
        }  # fmt: skip
    return rows


def _drawings() -> list[Sample]:
    """Drawings of one scene, among them many with equal hashes, in a set of their own."""
    generator = random.Random(2)
    scene = random_scene(generator)
    made = []
    for number in range(40):
        content = io.BytesIO()
        draw(scene, generator, 64).save(content, "PNG")
        key = hashlib.sha256(f"drawing {number}".encode()).hexdigest()[:32]
        made.append(Sample(key, content.getvalue(), "png", "a red square"))
    return made


def test_pictures_that_were_trained_on_are_found_and_left_out(world: World) -> None:
    measured, found = world.evaluate(comparison={"overlap": 0.999999}, reference=world.pairs)
    metrics, said = measured["metrics"], measured["comparison"]
    assert metrics["overlap/ranker/count"] == 5
    assert metrics["overlap/ranker/share"] == 5 / 20
    assert "overlap/any/count" not in metrics
    assert said["real pictures"] == 20
    assert said["real pictures are"] == "a set to evaluate on"
    trained = {sample.key for sample in world.trained()}
    kept = [sample for sample in world.samples if sample.key not in trained]
    drawn, left = said["drawn, real pictures without overlap"]
    assert left == len(kept) == 15
    assert drawn == 4 * len({sample.caption for sample in kept})
    both = [metrics[f"fid/ranker/{subset}blur_0"] for subset in ("", "without_overlap/")]
    assert both[0] != both[1]
    rows = world.overlaps(found)
    assert {row["key"] for row in rows if row["overlaps"]} == trained & {r["key"] for r in rows}
    assert all(row["nearest_training_key"] == row["key"] for row in rows[:5])
    sheets = {unit.name for unit in found.units if unit.name.startswith("overlap-")}
    assert sheets == {"overlap-ranker.png"}


def test_the_nearest_training_picture_is_that_of_all_pairs(world: World) -> None:
    _, found = world.evaluate(comparison={"overlap": 1}, reference=world.pairs)
    training, _ = first_pictures(map(world.work.fetch, world.images.units), 32, 24)
    asked, _ = first_pictures([world.work.fetch(world.pairs.units[0])], 32, 20)
    cosines = world.features(asked) @ world.features(training).T
    rows = {row["key"]: row for row in world.overlaps(found)}
    keys = [sample.key for sample in world.trained()]
    for sample, row in zip(world.samples, cosines, strict=True):
        said = rows[sample.key]
        assert said["cosine"] == pytest.approx(row.max(), abs=2e-6)
        assert row[keys.index(said["nearest_training_key"])] == pytest.approx(row.max(), abs=2e-6)


@pytest.mark.parametrize("shards", [1, 5])
def test_the_nearest_by_hash_is_that_of_all_pairs_however_they_lie_in_shards(
    world: World, copied: EvaluationPairs, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = world.trained()
    twins = [Sample(f"{n:032x}", one.image, "png", "a twin") for n, one in enumerate(trained[::3])]
    spread = add_pairs([*trained, *twins], world.work, shards)
    monkeypatch.setattr(world, "images", ImageShards(units=spread.units))
    _, found = world.evaluate(comparison={"overlap_bits": 4}, reference=copied)

    rows = world.overlaps(found)
    asked = [*world.samples, *map(_again, trained[-COPIES:])]
    assert {row["key"]: row for row in rows} == _nearest(asked, [*trained, *twins], 4)
    near = [(not row["overlaps"], row["bits"], row["mean_difference"]) for row in rows]
    assert near == sorted(near)


@pytest.mark.parametrize("shards", [1, 4])
def test_of_drawings_with_like_hashes_those_count_whose_thumbnails_agree(
    world: World, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies' own originals are named, even where another drawing has a nearer hash."""
    drawings = _drawings()
    trained, others = drawings[:24], drawings[24:]
    copies = {_again(sample).key: sample.key for sample in trained[:12]}
    asked = [*map(_again, trained[:12]), *others]
    spread = add_pairs(trained, world.work, shards)
    monkeypatch.setattr(world, "images", ImageShards(units=spread.units))
    reference = add_pairs(asked, world.work, 2)
    measured, found = world.evaluate(comparison={"overlap_bits": 16}, reference=reference)

    rows = {row["key"]: row for row in world.overlaps(found)}
    expected = _nearest(asked, trained, 16)
    assert rows == expected
    assert {key for key, row in rows.items() if row["overlaps"]} == set(copies)
    assert measured["metrics"]["overlap/hash/count"] == len(copies)
    named = {key: rows[key]["nearest_training_key_by_hash"] for key in copies}
    assert named == copies
    # By the hash alone most others would count, and some copies would have another drawing's name.
    hashes = {sample.key: _compared(sample)[0] for sample in [*asked, *trained]}
    least = {
        one.key: min((hashes[one.key] ^ hashes[other.key]).bit_count() for other in trained)
        for one in asked
    }
    assert min(least[sample.key] for sample in others) == 0
    assert sum(least[sample.key] <= 16 for sample in others) > len(others) / 2
    assert any(least[key] < rows[key]["bits"] for key in copies)


def test_other_bounds_of_thumbnails_may_be_declared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = _drawings()
    monkeypatch.setattr(
        world, "images", ImageShards(units=add_pairs(drawings[:24], world.work).units)
    )
    reference = add_pairs([_again(drawings[0]), *drawings[24:]], world.work)
    counts = []
    for bounds in ({}, {"mean_difference": 255}, {"mean_difference": 255, "most_difference": 60}):
        declared = {"overlap_bits": 4, **bounds}
        measured, found = world.evaluate(comparison=declared, reference=reference)
        counts.append(measured["metrics"]["overlap/hash/count"])
        for row in world.overlaps(found):
            within = row["most_difference"] <= bounds.get("most_difference", 36)
            within &= row["mean_difference"] <= bounds.get("mean_difference", 2.5)
            assert row["overlaps"] == (within and row["bits"] <= 4)
    assert counts[0] == 1 < counts[1] < counts[2] < 17


def test_the_hash_needs_no_other_bound_and_finds_copies_as_other_files(
    world: World, copied: EvaluationPairs
) -> None:
    measured, found = world.evaluate(comparison={"overlap_bits": 4}, reference=copied)
    metrics, said = measured["metrics"], measured["comparison"]
    assert metrics["overlap/hash/count"] == 5 + COPIES
    assert metrics["overlap/hash/share"] == (5 + COPIES) / (20 + COPIES)
    assert not any(name.startswith(("overlap/ranker", "overlap/any")) for name in metrics)
    assert said["bits of 256 up to which a picture overlaps"] == 4
    levels = "levels of 255 by which its thumbnail may differ, on average and anywhere"
    assert said[levels] == [2.5, 36]
    assert said["drawn, real pictures without overlap"][1] == 20 - 5
    assert "fid/ranker/without_overlap/blur_0" in metrics
    rows = world.overlaps(found)
    copies = {_again(sample).key for sample in world.trained()[-COPIES:]}
    assert copies < {row["key"] for row in rows if row["overlaps"]}
    assert all("cosine" not in row for row in rows)
    sheets = {unit.name for unit in found.units if unit.name.startswith("overlap-")}
    assert sheets == {"overlap-hash.png"}


def test_a_picture_overlaps_if_either_bound_says_so(world: World, copied: EvaluationPairs) -> None:
    bounds = {"overlap": 0.999999, "overlap_bits": 4}
    measured, found = world.evaluate(comparison=bounds, reference=copied)
    alone = [
        {row["key"] for row in world.overlaps(one) if row["overlaps"]}
        for name, bound in bounds.items()
        for one in [world.evaluate(comparison={name: bound}, reference=copied)[1]]
    ]
    rows = world.overlaps(found)
    both = {row["key"] for row in rows if row["overlaps"]}
    assert both == alone[0] | alone[1]
    counts = [measured["metrics"][f"overlap/{name}/count"] for name in ("ranker", "hash", "any")]
    assert counts == [len(alone[0]), len(alone[1]), len(both)]
    assert counts[0] < counts[1]  # the copies are not found by features as near as this
    assert measured["comparison"]["drawn, real pictures without overlap"][1] == 24 - len(both)
    assert all({"cosine", "bits"} < set(row) for row in rows)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"overlap": 0.001},
            r"^comparison.overlap \(from a cosine of 0\.001 on\): 20 of 20 real pictures overlap; ",
        ),
        (
            {"overlap": 0.001, "overlap_bits": 0},
            r" real pictures overlap; comparison.overlap_bits \(up to 0 bits and 2\.5 levels"
            r" \(at most 36\)\): 5 of 20 real pictures overlap; none is left, so look for a closer",
        ),
    ],
)
def test_bounds_that_leave_nothing_are_refused(
    world: World, bounds: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        world.evaluate(comparison=bounds, reference=world.pairs)


def test_overlap_of_training_pictures_with_themselves_is_refused(world: World) -> None:
    for name, bound in (("overlap", 0.9), ("overlap_bits", 4)):
        message = f"comparison.{name}: drawn .* all overlap; give a set .* as the input `reference`"
        with pytest.raises(PermanentError, match=message):
            world.evaluate(comparison={name: bound})


def test_features_of_a_ranker_are_needed_for_the_cosine_alone(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"never opened")
    world = World(tmp_path / "home", (str(weights),))
    declared = {"inception": str(weights)}
    given = {"reference": world.pairs, "ranker": None}
    with pytest.raises(PermanentError, match=r"overlap: a ranker finds it; .* overlap_bits"):
        world.evaluate(comparison={**declared, "overlap": 0.9}, **given)
    # The next that is asked for: more pictures than Inception has features.
    with pytest.raises(PermanentError, match="20 pictures on a side, and 2048 features"):
        world.evaluate(comparison={**declared, "overlap_bits": 4}, **given)
