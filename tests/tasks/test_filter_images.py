"""Filtering images: every pair is kept as it was fetched or dropped with a reason."""

import hashlib
import random

from PIL import Image

from infra.demo_web import files
from infra.demo_web.drawing import random_pairs
from infra.shards import read_shard
from infra.tables import read_table
from infra.work import Work
from schemas.artifact import ImageShards
from schemas.records import DROP_SCHEMA, FINDING_SCHEMA
from tasks.filter_images import FilterImagesParams, filter_images
from tests.tasks.image_shards import add_samples, make_sample, samples_of, saved

PARAMS = FilterImagesParams(
    filters=("decodable", {"min_size": {"pixels": 32}}, "aspect_ratio", "near_blank")
)
RNG = random.Random(1)
DRAWINGS = [pair.picture for pair in random_pairs(6, seed=2)]
BAD = {
    "too_small": saved(DRAWINGS[0].resize((20, 20))),
    "aspect_ratio": saved(Image.new("RGB", (200, 60), "red")),
    "near_blank": saved(Image.new("RGB", (64, 64), "red")),
    "undecodable": b"<html>not found</html>",
    "truncated": saved(DRAWINGS[1], "JPEG")[:600],
    "bomb": files.bomb(RNG).content,
    "animated": files.animated(DRAWINGS[2], DRAWINGS[3], "gif").content,
}


def run(folder, shards=2):
    work = Work.local(folder)
    samples = [make_sample(f"good{n}", saved(one, "JPEG")) for n, one in enumerate(DRAWINGS)]
    samples += [make_sample(reason, content) for reason, content in BAD.items()]
    return filter_images(add_samples(work, samples, shards), PARAMS, work), work


def test_every_pair_is_kept_or_dropped_with_its_reason(tmp_path):
    filtered, work = run(tmp_path)

    drops = [r for unit in filtered.drops.units for r in read_table(work.fetch(unit), DROP_SCHEMA)]
    assert {r["image_url"].rsplit("/", 1)[1]: r["reason"] for r in drops} == {r: r for r in BAD}
    kept = samples_of(filtered.kept, work)
    assert len(kept) == len(DRAWINGS)
    assert work.counts["kept"] == 6
    sha256 = {r["reason"]: r["sha256"] for r in drops}
    assert sha256["bomb"] == hashlib.sha256(BAD["bomb"]).hexdigest()


def test_images_stay_as_they_were_fetched_and_records_gain_their_size(tmp_path):
    filtered, work = run(tmp_path)

    original = {saved(one, "JPEG") for one in DRAWINGS}
    for sample in samples_of(filtered.kept, work).values():
        assert sample.image in original
        assert (sample.record["width"], sample.record["height"]) == (64, 64)
        assert sample.record["sha256"] == hashlib.sha256(sample.image).hexdigest()
        assert sample.record["domain"] == "a.test"


def test_shards_are_the_same_bytes_in_every_run(tmp_path):
    first, _ = run(tmp_path / "a")
    second, _ = run(tmp_path / "b")

    assert first == second


def test_a_shard_that_loses_everything_is_gone(tmp_path):
    work = Work.local(tmp_path)
    good = make_sample("good", saved(DRAWINGS[0]))
    bad = [make_sample(reason, content) for reason, content in BAD.items()]
    only_bad, only_good = add_samples(work, bad).units[0], add_samples(work, [good]).units[0]
    filtered = filter_images(ImageShards(units=(only_bad, only_good)), PARAMS, work)

    assert [unit.records for unit in filtered.kept.units] == [1]
    assert [s.key for s in read_shard(work.fetch(filtered.kept.units[0]))] == [good.key]


def test_a_dry_run_drops_nothing_and_says_what_it_would_do(tmp_path):
    filtered, real = run(tmp_path / "real")
    work = Work.local(tmp_path / "dry")
    samples = [make_sample(f"good{n}", saved(one, "JPEG")) for n, one in enumerate(DRAWINGS)]
    samples += [make_sample(reason, content) for reason, content in BAD.items()]
    images = add_samples(work, samples, 2)
    dry = filter_images(images, PARAMS.model_copy(update={"dry_run": True}), work)

    assert dry.kept == images and dry.drops.units == ()
    told = [r for u in dry.findings.units for r in read_table(work.fetch(u), FINDING_SCHEMA)]
    order = [next(iter(spec)) for spec in PARAMS.filters]
    first = {}
    for row in sorted(told, key=lambda row: order.index(row["filter"])):
        if row["reason"]:
            first.setdefault(row["key"], row["reason"])
    drops = [r for u in filtered.drops.units for r in read_table(real.fetch(u), DROP_SCHEMA)]
    assert first == {row["key"]: row["reason"] for row in drops}
    assert work.counts["would_drop/too_small"] == 1
    small = {r["measure"]: r["value"] for r in told if r["key"] == make_sample("too_small", b"").key
             and r["measure"]}  # fmt: skip
    assert small["pixels"] == 20 and small["ratio"] == 1
    # Of what is no picture, nothing but that is asked.
    broken = make_sample("undecodable", b"").key
    assert [row["filter"] for row in told if row["key"] == broken] == ["decodable"]
