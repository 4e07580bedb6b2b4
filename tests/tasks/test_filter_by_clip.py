"""Filtering by a contrastive model: its scores, the cut, and which pairs go."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from infra.demo_web.drawing import random_pairs
from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.tables import read_table
from infra.work import Work
from schemas.records import DROP_SCHEMA, FINDING_SCHEMA
from tasks.filter_by_clip import FilterByClipParams, filter_by_clip
from tasks.judging import Judge
from tasks.prepared import pixels
from tests.tasks.image_shards import add_samples, make_sample, samples_of, saved
from tests.tasks.tiny_models import add_ranker, add_text_tokenizer, vocabulary_of

PROMPTS = {"unwanted": ["a red circle", "a red square"], "wanted": ["a blue circle"]}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Samples, the tiny models, and features and cosines from the stage that ranks."""
    work = Work.local(tmp_path_factory.mktemp("clip"))
    samples = [
        make_sample(f"{n}", saved(pair.picture), pair.caption)
        for n, pair in enumerate(random_pairs(70, seed=4))
    ]
    samples.sort(key=lambda sample: sample.key)
    tokenizer = add_text_tokenizer(work)
    ranker = add_ranker(work, vocabulary_of(work, tokenizer))
    judge = Judge(work.fetch(ranker.units[0]), work.fetch(tokenizer.units[0]))
    images = judge.images(np.stack([pixels(sample, 32) for sample in samples]))
    texts = judge.captions([sample.caption for sample in samples])
    return {
        "work": work, "samples": samples, "tokenizer": tokenizer, "ranker": ranker,
        "features": images, "cosines": (images * texts).sum(axis=1), "judge": judge,
    }  # fmt: skip


def run(case, filters, shards=3, work=None, **options):
    work = work or case["work"]
    params = FilterByClipParams(filters=filters, **options)
    work.sources = resolve_sources(params.sources(), work.environment)
    images = add_samples(work, case["samples"], shards)
    return filter_by_clip(images, case["ranker"], params, work, case["tokenizer"])


def rows(artifact, schema, work):
    return [one for unit in artifact.units for one in read_table(work.fetch(unit), schema)]


def kept(case, found):
    return [s.key in samples_of(found.kept, case["work"]) for s in case["samples"]]


def test_similarity_is_the_cosine_that_ranks(case):
    bound = float(np.sort(case["cosines"])[30]) - 1e-4
    found = run(case, [{"similarity": {"min": bound}}])

    assert kept(case, found) == (case["cosines"] >= bound).tolist()
    scores = {r["key"]: r["value"] for r in rows(found.scores, FINDING_SCHEMA, case["work"])}
    expected = dict(zip([s.key for s in case["samples"]], case["cosines"], strict=True))
    assert scores == pytest.approx(expected, abs=2e-5)
    drops = rows(found.drops, DROP_SCHEMA, case["work"])
    assert {row["reason"] for row in drops} == {"low_similarity"} and len(drops) == 30


@pytest.mark.parametrize("shards", [1, 7])
def test_a_share_is_of_all_pairs_whatever_shards_they_lie_in(case, shards):
    found = run(case, [{"similarity": {"keep": 0.3}}], shards)

    best = np.argsort(-case["cosines"])[:21]
    assert set(np.flatnonzero(kept(case, found))) == set(best.tolist())


def test_a_linear_head_from_a_file(case, tmp_path):
    weight = np.random.default_rng(0).normal(size=64).astype(np.float32) * 20
    path = tmp_path / "watermark.safetensors"
    save_file({"weight": weight, "bias": np.array([0.25], np.float32)}, path)
    found = run(case, [{"watermark": {"head": str(path), "max": 0.6}}])

    probability = torch.sigmoid(torch.from_numpy(case["features"] @ weight + 0.25)).numpy()
    assert kept(case, found) == (probability <= 0.6).tolist()
    assert 5 < sum(kept(case, found)) < 65
    assert {r["reason"] for r in rows(found.drops, DROP_SCHEMA, case["work"])} == {"watermark"}


def unwanted_of(case):
    prompts = case["judge"].texts([*PROMPTS["unwanted"], *PROMPTS["wanted"]])
    scale = case["judge"].ranker.scale.item()
    logits = torch.from_numpy(case["features"] @ prompts.T * scale)
    return torch.softmax(logits, dim=1)[:, :2].sum(dim=1).numpy()


def test_prompts_are_a_softmax(case):
    unwanted = unwanted_of(case)
    bound = float(np.median(unwanted)) + 1e-4
    found = run(case, [{"nsfw": {**PROMPTS, "max": bound}}])

    assert kept(case, found) == (unwanted <= bound).tolist()


def test_the_first_that_objects_gives_the_reason_and_a_share_is_of_those_left(case):
    filters = [{"nsfw": {**PROMPTS, "max": 0.0}}, {"similarity": {"keep": 0.5}}]
    with pytest.raises(PermanentError, match=r"no pair is left of 70 \(70 nsfw\)"):
        run(case, filters)
    found = run(case, [filters[1], {"nsfw": {**PROMPTS, "max": 1.0}}])
    assert sum(kept(case, found)) == 35


def test_a_threshold_that_is_moved_scores_nothing_anew(case, tmp_path):
    work = Work.local(tmp_path)
    for unit in (*case["ranker"].units, *case["tokenizer"].units):
        work.store.put(case["work"].fetch(unit), unit.name)
    run(case, [{"similarity": {"keep": 0.9}}], work=work)
    later = Work.local(tmp_path)
    run(case, [{"similarity": {"keep": 0.8}}], work=later)

    assert later.reused == 3


def test_a_dry_run_drops_nothing_and_says_what_it_would_do(case):
    work = case["work"]
    work.counts.clear()
    median = float(np.median(unwanted_of(case)))
    filters = [{"similarity": {"keep": 0.5}}, {"nsfw": {**PROMPTS, "max": median}}]
    real = run(case, filters)
    dry = run(case, filters, dry_run=True)

    assert dry.kept.records == 70 and dry.drops.units == ()
    told = rows(dry.scores, FINDING_SCHEMA, work)
    assert len(told) == 140
    first = {}
    for row in sorted(told, key=lambda row: row["filter"] == "nsfw"):
        if row["reason"]:
            first.setdefault(row["key"], row["reason"])
    assert first == {r["key"]: r["reason"] for r in rows(real.drops, DROP_SCHEMA, work)}
    assert work.counts["would_drop/low_similarity"] == 35


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ([{"similarity": {}}], "give either min"),
        ([{"similarity": {"min": 0.2, "keep": 0.3}}], "give either min"),
        ([{"nsfw": {}}], "give either head"),
        ([{"nsfw": {"unwanted": ["x"]}}], "both unwanted and wanted"),
        ([{}], "write one filter each"),
        ([{"similarity": {"min": 0}}, {"similarity": {"min": 0}}], "each at most once"),
    ],
)
def test_filters_that_make_no_sense_are_refused(filters, words):
    with pytest.raises(ValueError, match=words):
        FilterByClipParams(filters=filters)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": np.zeros(3, np.float32), "bias": np.zeros(1, np.float32)}, "3 weights, but"),
        ({"weight": np.zeros((2, 64), np.float32)}, r"not weight \[D\] and bias"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(case, tmp_path, tensors, words):
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(PermanentError, match=words):
        run(case, [{"watermark": {"head": str(tmp_path / "head.safetensors")}}])


def test_a_head_that_is_no_safetensors_is_refused(case, tmp_path):
    (tmp_path / "head.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(PermanentError, match="is no safetensors file"):
        run(case, [{"watermark": {"head": str(tmp_path / "head.safetensors")}}])


def test_a_model_with_a_tokenizer_of_its_own_needs_no_other(case):
    params = FilterByClipParams(filters=[{"similarity": {"min": 0}}])
    images = add_samples(case["work"], case["samples"][:3])

    with pytest.raises(PermanentError, match="text_tokenizer: this model needs one"):
        filter_by_clip(images, case["ranker"], params, case["work"])
