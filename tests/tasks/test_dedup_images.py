"""Dedup: copies go and different pictures stay, whatever shards they lie in."""

import random

import numpy as np
import pytest
from PIL import Image

from infra.demo_web import files
from infra.demo_web.drawing import draw, random_pairs, random_scene
from infra.errors import PermanentError
from infra.tables import read_table
from infra.work import Work
from schemas.artifact import EvaluationPairs, ImageShards
from schemas.records import CLUSTER_SCHEMA, DROP_SCHEMA
from schemas.scene import all_scenes
from tasks.dedup.clusters import Features, Origin, find_clusters
from tasks.dedup.picture_hash import Likeness, hash_picture
from tasks.dedup_images import DedupParams, dedup_images
from tasks.pictures import decode
from tests.tasks.image_shards import add_samples, make_sample, samples_of, saved


def make_group(number, rng):
    """One drawing as it was drawn, with the same bytes again, and re-encoded twice."""
    picture = draw(random_scene(rng), rng, 64)
    first = saved(picture)
    copies = [first, first, *(files.again(picture, rng, way).content for way in (0, 1))]
    return [make_sample(f"{number}-{copy}", content) for copy, content in enumerate(copies)]


@pytest.fixture(scope="module")
def samples():
    rng = random.Random(6)
    groups = [sample for number in range(12) for sample in make_group(number, rng)]
    singles = [
        make_sample(f"single-{number}", saved(pair.picture, "JPEG", quality=90))
        for number, pair in enumerate(random_pairs(150, seed=7))
    ]
    return [*groups, *singles]


def run(folder, samples, shards=3):
    work = Work.local(folder)
    return dedup_images(add_samples(work, samples, shards), DedupParams(), work), work


def rows(artifact, schema, work):
    return [one for unit in artifact.units for one in read_table(work.fetch(unit), schema)]


def name_of(url):
    return url.rsplit("/", 1)[1]


def test_of_each_group_one_is_kept_and_every_single_is(tmp_path, samples):
    found, work = run(tmp_path, samples)

    kept = [name_of(s.record["image_url"]) for s in samples_of(found.kept, work).values()]
    groups = [name.split("-")[0] for name in kept if not name.startswith("single")]
    assert sorted(groups, key=int) == [str(number) for number in range(12)]
    assert sum(name.startswith("single") for name in kept) == 150


def test_drops_and_clusters_say_why(tmp_path, samples):
    found, work = run(tmp_path, samples)

    drops = rows(found.drops, DROP_SCHEMA, work)
    clusters = rows(found.clusters, CLUSTER_SCHEMA, work)
    assert len(drops) == 12 * 3
    assert {row["reason"] for row in drops} == {"exact_duplicate", "near_duplicate"}
    assert sum(row["survivor"] for row in clusters) == 12 == work.counts["clusters"]
    rules = {row["key"]: row["rule"] for row in clusters if not row["survivor"]}
    assert rules == {row["key"]: row["reason"] for row in drops}
    survivors = {row["cluster"] for row in clusters}
    assert all(any(key in row["detail"] for key in survivors) for row in drops)


@pytest.mark.parametrize("shards", [1, 7])
def test_the_split_over_shards_makes_no_difference(tmp_path, samples, shards):
    first, work = run(tmp_path / "a", samples)
    second, other = run(tmp_path / "b", samples, shards)

    assert samples_of(first.kept, work) == samples_of(second.kept, other)
    assert first.clusters == second.clusters


def test_the_survivor_is_the_largest_and_then_the_first_by_key(tmp_path):
    picture = next(random_pairs(1, seed=1)).picture
    sizes = {"small": 48, "large": 96, "also-large": 96}
    samples = [
        make_sample(name, saved(picture.resize((side, side), Image.Resampling.LANCZOS)))
        for name, side in sizes.items()
    ]
    found, work = run(tmp_path, samples, 1)

    (kept,) = samples_of(found.kept, work)
    assert kept == min(sample.key for sample in samples if sample != samples[0])


def test_shards_that_lose_nothing_stay_as_they_are(tmp_path, samples):
    work = Work.local(tmp_path)
    singles = add_samples(work, [s for s in samples if "single" in s.record["image_url"]])
    groups = add_samples(work, [s for s in samples if "single" not in s.record["image_url"]])
    both = ImageShards(units=singles.units + groups.units)
    found = dedup_images(both, DedupParams(), work)

    assert found.kept.units[0] == singles.units[0]
    assert found.kept.units[1] != groups.units[0]
    assert found.kept.records == 150 + 12


def test_nothing_to_drop_is_no_drops(tmp_path):
    samples = [make_sample(f"{n}", saved(p.picture)) for n, p in enumerate(random_pairs(5, seed=3))]
    found, work = run(tmp_path, samples, 2)

    assert found.drops.units == ()
    assert found.kept.records == 5
    assert rows(found.clusters, CLUSTER_SCHEMA, work) == []


def test_an_image_that_was_not_filtered_is_named(tmp_path):
    with pytest.raises(PermanentError, match="cannot be decoded .* let filter_images"):
        run(tmp_path, [make_sample("x", b"no image")], 1)


def test_what_is_the_same_as_the_same_is_the_same():
    thumbnails = np.repeat(np.array([[100], [102], [104], [200]], np.uint8), 768, axis=1)
    features = Features(
        keys=np.array([b"a" * 16, b"b" * 16, b"c" * 15 + b"\0", b"d" * 16], "S16"),
        sha256=np.arange(16, dtype=np.uint64).reshape(4, 4), area=np.array([1, 1, 5, 9]),
        hashes=np.zeros((4, 32), np.uint8), thumbnails=thumbnails,
        origin=np.full(4, Origin.NEW),
    )  # fmt: skip
    found = list(find_clusters(features, 4, Likeness(most_difference=9)).rows())

    a, b, c = "61" * 16, "62" * 16, "63" * 15 + "00"
    assert [(row["cluster"], row["key"], row["difference"]) for row in found] == [
        (c, a, 4.0), (c, b, 2.0), (c, c, 0.0),
    ]  # fmt: skip


def test_the_hash_sees_colour_and_place_and_not_compression():
    def bits(left, right):
        values = (np.frombuffer(hash_picture(one), np.uint8) for one in (left, right))
        return int(np.bitwise_count(np.bitwise_xor(*values)).sum())

    def circle(colour, place):
        canvas = Image.new("RGB", (64, 64), (243, 243, 243))
        canvas.paste(colour, (place, place, place + 24, place + 24))
        return canvas

    red, green = circle((220, 40, 40), 10), circle((40, 165, 60), 10)
    assert bits(red, green) > 16
    assert bits(red, circle((220, 40, 40), 30)) > 16
    rng = random.Random(2)
    for way, pair in enumerate(random_pairs(40, seed=5)):
        copy = decode(files.again(pair.picture, rng, way).content)
        assert bits(pair.picture, copy) <= 16


def test_two_drawings_of_one_scene_are_two_pictures(tmp_path):
    rng = random.Random(9)
    scene = random_scene(rng)
    drawings = [saved(draw(scene, rng, 64)) for _ in range(40)]
    found, _ = run(tmp_path, [make_sample(f"{n}", d) for n, d in enumerate(drawings)], 1)

    assert found.kept.records >= 39


def test_small_shapes_that_are_drawn_anew_are_different_pictures(tmp_path):
    """The hardest of the demo's: most of both pictures is the same background."""
    rng = random.Random(3)
    scenes = [scene for scene in all_scenes(1) if scene.things[0].size == "small"]
    drawings = [saved(draw(scene, rng, 64)) for scene in scenes for _ in range(8)]
    found, _ = run(tmp_path, [make_sample(f"{n}", d) for n, d in enumerate(drawings)], 1)

    assert found.kept.records == len(drawings)


def test_a_tone_that_changes_little_of_an_emoji_makes_another_picture(tmp_path):
    """A face whose skin alone differs: on average little, and much where the skin is."""
    rng = np.random.default_rng(4)
    face = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((64, 64), 0)
    tones = [(250, 220, 190), (190, 140, 90), (90, 60, 50)]
    pictures = []
    for tone in tones:
        picture = face.copy()
        picture.paste(tone, (28, 28, 36, 36))
        pictures.append(picture)
    samples = [make_sample(f"{n}", saved(p)) for n, p in enumerate(pictures)]
    found, _ = run(tmp_path, samples, 1)

    assert found.kept.records == 3


def slow_groups(features, distance, likeness):
    """What is the same, by comparing all with all: sets that grow until nothing is added."""
    count = len(features.keys)
    groups = [{n} for n in range(count)]
    for i in range(count):
        for j in range(i):
            bits = np.bitwise_count(features.hashes[i] ^ features.hashes[j]).sum()
            apart = np.abs(features.thumbnails[i].astype(int) - features.thumbnails[j].astype(int))
            near = bits <= distance and apart.mean() <= likeness.mean_difference
            if (features.sha256[i] == features.sha256[j]).all() or (
                near and apart.max() <= likeness.most_difference
            ):
                one, other = (next(g for g in groups if n in g) for n in (i, j))
                if one is not other:
                    one |= other
                    groups.remove(other)
    return groups


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_a_plain_comparison_of_all_with_all(seed):
    rng = np.random.default_rng(seed)
    count = 120
    content = rng.integers(0, 100, count)  # same bytes, same picture
    hashes = np.packbits(rng.random((100, 256)) < 0.01, axis=1)[content]
    thumbnails = np.repeat(rng.integers(0, 4, (100, 1)).astype(np.uint8) * 2, 768, axis=1)[content]
    sha256 = np.repeat(content[:, None].astype(np.uint64), 4, axis=1)
    keys = np.sort(np.frombuffer(rng.bytes(16 * count), "S16"))
    origin = rng.choice(list(Origin), count, p=[0.7, 0.15, 0.15])
    features = Features(keys, sha256, rng.integers(1, 4, count), hashes, thumbnails, origin)
    likeness = Likeness(mean_difference=1.0)
    found = find_clusters(features, 3, likeness)
    groups = slow_groups(features, 3, likeness)

    rank = [(-features.origin[n], -features.area[n], n) for n in range(count)]
    expected = {n: min(group, key=lambda m: rank[m]) for group in groups for n in group}
    dropped, numbers = found.dropped()
    best = dict(zip(dropped.tolist(), found.survivors[numbers].tolist(), strict=True))
    assert best == {n: b for n, b in expected.items() if n != b and origin[n] == Origin.NEW}
    assert len(best) > 20
    seen = [n for group in groups if any(origin[m] == Origin.EVALUATION for m in group)
            for n in group if origin[n] == Origin.EARLIER]  # fmt: skip
    assert found.earlier_in_evaluation == len(seen) > 0


def test_a_picture_of_an_earlier_collection_does_not_come_back(tmp_path, samples):
    work = Work.local(tmp_path)
    names = {sample.key: name_of(sample.record["image_url"]) for sample in samples}
    copies = {k for k, n in names.items() if n[0] != "s" and n.endswith(("-2", "-3"))}
    half = [sample for sample in samples if sample.key not in copies]
    rest = [sample for sample in samples if sample.key in copies]  # re-encoded
    first = dedup_images(add_samples(work, half, 2), DedupParams(), work)
    fresh = make_sample("fresh", saved(next(random_pairs(1, seed=77)).picture))
    second = dedup_images(
        add_samples(work, [*rest, fresh], 2), DedupParams(), work, earlier=first.features
    )

    assert list(samples_of(second.kept, work)) == [fresh.key]
    drops = rows(second.drops, DROP_SCHEMA, work)
    assert len(drops) == len(rest)
    assert all("of an earlier collection" in row["detail"] for row in drops)
    clusters = rows(second.clusters, CLUSTER_SCHEMA, work)
    kept_before = {sample.key for sample in half}
    assert {row["key"] for row in clusters if row["rule"] == "earlier"} <= kept_before
    assert all(row["survivor"] == (row["rule"] == "earlier") for row in clusters)
    # A third month is compared with both.
    again = make_sample("again", fresh.image)
    other = make_sample("other", saved(next(random_pairs(1, seed=78)).picture))
    third = dedup_images(
        add_samples(work, [again, other]), DedupParams(), work, earlier=second.features
    )
    assert list(samples_of(third.kept, work)) == [other.key]


def evaluation_of(work, samples, shards=1):
    """A set to evaluate on."""
    return EvaluationPairs(units=add_samples(work, samples, shards).units)


def apart(samples):
    """Pictures to train on, and others to evaluate on: of 6 groups a re-encoded copy, 20 singles.

    Of the singles 10 are copies of the first 10 to train on: 5 by their bytes, 5 re-encoded.
    """
    names = {sample.key: name_of(sample.record["image_url"]) for sample in samples}
    taken = {f"{number}-2" for number in range(6)}
    trained = [sample for sample in samples if names[sample.key] not in taken]
    rng = random.Random(8)
    held = [sample for sample in samples if names[sample.key] in taken]
    for number, sample in enumerate(trained[-20:]):
        content = sample.image
        if 5 <= number < 10:
            content = files.again(decode(content), rng, number % 2).content
        elif number >= 10:
            content = saved(next(random_pairs(1, seed=900 + number)).picture)
        held.append(make_sample(f"held-{number}", content))
    return trained, held, [sample.key for sample in trained[-20:-10]]


def test_nothing_like_a_picture_to_evaluate_on_is_kept(tmp_path, samples):
    trained, held, singles = apart(samples)
    work = Work.local(tmp_path)
    found = dedup_images(
        add_samples(work, trained, 3), DedupParams(), work, evaluation=evaluation_of(work, held, 2)
    )

    kept = {name_of(one.record["image_url"]) for one in samples_of(found.kept, work).values()}
    assert sorted(n.split("-")[0] for n in kept if n[0] != "s") == sorted("6 7 8 9 10 11".split())
    assert len(kept) == 6 + 150 - len(singles)
    drops = {row["key"]: row for row in rows(found.drops, DROP_SCHEMA, work)}
    ours = {key for key, row in drops.items() if row["reason"] == "evaluation_picture"}
    assert work.counts["dropped/evaluation_picture"] == len(ours)
    assert ours == {k for k, row in drops.items() if "a set to evaluate on" in row["detail"]}
    names = {sample.key: name_of(sample.record["image_url"]) for sample in trained}
    assert {names[key].split("-")[0] for key in ours - set(singles)} == set("012345")
    assert set(singles) < ours
    held_keys = {sample.key for sample in held}
    assert all(any(key in drops[one]["detail"] for key in held_keys) for one in ours)
    clusters = rows(found.clusters, CLUSTER_SCHEMA, work)
    assert {row["key"] for row in clusters if row["rule"] == "evaluation"} <= held_keys
    assert all(row["survivor"] for row in clusters if row["rule"] == "evaluation")
    assert {row["key"] for row in clusters if row["rule"] == "evaluation_picture"} == ours
    assert {row["key"] for row in clusters if row["cluster"] in held_keys} - held_keys == ours
    # What is given to a later collection is what this one has seen of the web.
    assert found.features.records == len(trained)


@pytest.mark.parametrize(("shards", "held_shards"), [(1, 5), (7, 1)])
def test_what_is_kept_apart_does_not_depend_on_shards(tmp_path, samples, shards, held_shards):
    trained, held, _ = apart(samples)
    found = []
    for name, split in (("a", (3, 2)), ("b", (shards, held_shards))):
        work = Work.local(tmp_path / name)
        images = add_samples(work, trained, split[0])
        held_out = evaluation_of(work, held, split[1])
        made = dedup_images(images, DedupParams(), work, evaluation=held_out)
        drops = {row["key"]: row["detail"] for row in rows(made.drops, DROP_SCHEMA, work)}
        found.append((samples_of(made.kept, work), drops, made.clusters))

    assert found[0] == found[1]


def test_a_picture_to_evaluate_on_comes_before_one_of_an_earlier_collection(tmp_path, samples):
    """Also in a month in which the evaluation is declared for the first time."""
    work = Work.local(tmp_path)
    group, other = ([s for s in samples if name_of(s.record["image_url"]).startswith(g)]
                    for g in ("3-", "4-"))  # fmt: skip
    first = dedup_images(add_samples(work, [group[0], other[0]]), DedupParams(), work)
    fresh = make_sample("fresh", saved(next(random_pairs(1, seed=77)).picture))
    second = dedup_images(
        add_samples(work, [group[1], other[1], fresh], 2), DedupParams(), work,
        earlier=first.features, evaluation=evaluation_of(work, [group[2]]),
    )  # fmt: skip

    assert list(samples_of(second.kept, work)) == [fresh.key]
    details = {row["key"]: row["detail"] for row in rows(second.drops, DROP_SCHEMA, work)}
    assert f"{group[2].key} of a set to evaluate on" in details[group[1].key]
    assert f"{other[0].key} of an earlier collection" in details[other[1].key]
    reasons = {row["key"]: row["reason"] for row in rows(second.drops, DROP_SCHEMA, work)}
    assert reasons[group[1].key] == "evaluation_picture" != reasons[other[1].key]
    rules = {row["key"]: row["rule"] for row in rows(second.clusters, CLUSTER_SCHEMA, work)}
    assert rules[group[2].key] == "evaluation"
    assert rules[group[0].key] == rules[other[0].key] == "earlier"


def test_pictures_of_an_earlier_collection_that_are_evaluated_on_are_counted(tmp_path, samples):
    """Whether or not a new picture is like them, and also those that were dropped as copies."""
    trained, held, _ = apart(samples)
    back = [s for s in trained if name_of(s.record["image_url"]).startswith(("0-", "1-"))]
    said = []
    work = Work.local(tmp_path, listen=said.append)
    before = dedup_images(add_samples(work, trained, 3), DedupParams(), work)
    assert "earlier_in_evaluation" not in work.counts

    fresh = make_sample("fresh", saved(next(random_pairs(1, seed=77)).picture))
    held_out = evaluation_of(work, held, 2)
    for month in ([fresh], [*back, fresh]):
        work.counts.clear()
        said.clear()
        dedup_images(add_samples(work, month, 2), DedupParams(), work, before.features, held_out)
        assert (
            work.counts["earlier_in_evaluation"] == 6 * 3 + 10
        )  # of each group three, and singles
        (text,) = [one.values["text"] for one in said if one.kind == "message"]
        assert "28 pictures that the earlier collection has seen" in text

    work.counts.clear()
    said.clear()
    other = evaluation_of(work, [make_sample("other", saved(next(random_pairs(1, 78)).picture))])
    dedup_images(add_samples(work, [fresh]), DedupParams(), work, before.features, other)
    assert work.counts["earlier_in_evaluation"] == 0
    assert "earlier_in_evaluation" in work.counts
    assert not [one for one in said if one.kind == "message"]
    work.counts.clear()
    dedup_images(add_samples(work, [fresh]), DedupParams(), work, evaluation=other)
    assert "earlier_in_evaluation" not in work.counts


def test_a_set_to_evaluate_on_that_nothing_is_like_changes_nothing(tmp_path, samples):
    singles = [one for one in samples if "single" in one.record["image_url"]]
    held = [make_sample(f"held-{n}", saved(p.picture))
            for n, p in enumerate(random_pairs(5, seed=901))]  # fmt: skip
    twins = [make_sample(f"twin-{n}", one.image) for n, one in enumerate(held)]
    work = Work.local(tmp_path)
    images = add_samples(work, singles, 2)
    found = dedup_images(
        images, DedupParams(), work, evaluation=evaluation_of(work, [*held, *twins])
    )

    assert found.kept.units == images.units
    assert found.drops.units == ()
    assert rows(found.clusters, CLUSTER_SCHEMA, work) == []  # nothing was decided among them


@pytest.mark.parametrize("units", [0, 1])
def test_a_set_to_evaluate_on_without_pictures_is_refused(tmp_path, samples, units):
    work = Work.local(tmp_path)
    held = evaluation_of(work, [], units)
    with pytest.raises(PermanentError, match="evaluation: there is not one picture in this set"):
        dedup_images(add_samples(work, samples[:2]), DedupParams(), work, evaluation=held)
