"""Semantic dedup: who is near whom, who stays, and that neither split nor order matters."""

import random

import numpy as np
import pytest
from sklearn.cluster import KMeans

from infra.demo_web import files
from infra.demo_web.drawing import random_pairs
from infra.errors import PermanentError
from infra.tables import read_table
from infra.work import Work
from schemas.records import CLUSTER_SCHEMA, DROP_SCHEMA
from tasks.dedup.kmeans import assign_cells
from tasks.dedup_semantic import DedupSemanticParams, Pictures, dedup_semantic, find_survivors
from tests.tasks.image_shards import add_samples, make_sample, samples_of, saved
from tests.tasks.tiny_models import add_ranker

PARAMS = DedupSemanticParams(cosine=0.998)


def make_pictures(count=400, groups=40, spread=0.05, seed=0):
    """Features around some directions, with areas and some earlier ones."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 32))
    features = centres[rng.integers(0, groups, count)] + spread * rng.normal(size=(count, 32))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    keys = np.sort(np.frombuffer(rng.bytes(16 * count), "S16"))
    return Pictures(
        keys.view(np.uint8).reshape(-1, 16), rng.integers(0, 255, (count, 32), dtype=np.uint8),
        rng.integers(1, 5, count), rng.random(count) < 0.1, features.astype(np.float16),
    )  # fmt: skip


def plainly(pictures, cosine):
    """One after the other, best first: near one that stays, it goes."""
    count = len(pictures.area)
    order = sorted(range(count), key=lambda n: (not pictures.earlier[n], -pictures.area[n], n))
    features = pictures.features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    stays, found = [], {}
    for one in order:
        near = [best for best in stays if features[one] @ features[best] >= cosine]
        found[one] = near[0] if near and not pictures.earlier[one] else one
        if found[one] == one:
            stays.append(one)
    return [found[n] for n in range(count)]


@pytest.mark.parametrize("cosine", [0.9, 0.95])
def test_in_one_cell_it_is_a_comparison_of_all_with_all(cosine):
    pictures = make_pictures()
    survivors, cosines = find_survivors(pictures, cosine, cells=1)

    assert survivors.tolist() == plainly(pictures, cosine)
    lost = survivors != np.arange(400)
    assert 100 < lost.sum() < 390 and (cosines[lost] >= cosine).all()


def test_cells_lose_little_of_what_is_near():
    pictures = make_pictures(2000, 200, seed=1)
    whole, _ = find_survivors(pictures, 0.95, cells=1)
    cells, cosines = find_survivors(pictures, 0.95, cells=16)

    lost, found = (one != np.arange(2000) for one in (whole, cells))
    assert found.sum() >= 0.95 * lost.sum()
    assert (cosines[found] >= 0.95).all()


def test_cells_are_about_as_tight_as_those_of_scikit_learn():
    features = make_pictures(2000, 30, spread=0.2, seed=2).features.astype(np.float32)

    def tightness(cells):
        groups = [features[cells == cell] for cell in np.unique(cells)]
        return sum(np.linalg.norm(group.sum(axis=0)) for group in groups) / len(features)

    reference = KMeans(12, n_init=1, random_state=0).fit_predict(features)
    assert tightness(assign_cells(features, 12)) > 0.95 * tightness(reference)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    work = Work.local(tmp_path_factory.mktemp("semantic"))
    rng, samples = random.Random(4), []
    for number, pair in enumerate(random_pairs(30, seed=8)):
        samples.append(make_sample(f"{number}", saved(pair.picture)))
        if number < 10:
            copy = files.again(pair.picture, rng, 1).content
            samples.append(make_sample(f"{number}-copy", copy))
    return work, samples, add_ranker(work, 300)


def name_of(sample):
    return sample.record["image_url"].rsplit("/", 1)[1]


def rows(artifact, schema, work):
    return [one for unit in artifact.units for one in read_table(work.fetch(unit), schema)]


def test_copies_go_and_clusters_say_why(case):
    work, samples, ranker = case
    found = dedup_semantic(add_samples(work, samples, 3), ranker, PARAMS, work)

    kept = [name_of(sample).split("-")[0] for sample in samples_of(found.kept, work).values()]
    assert len(kept) == len(set(kept)) >= 25, "of a drawing and its copy not both stay"
    drops = {row["key"]: row for row in rows(found.drops, DROP_SCHEMA, work)}
    assert len(drops) >= 10
    assert {row["reason"] for row in drops.values()} == {"semantic_duplicate"}
    clusters = rows(found.clusters, CLUSTER_SCHEMA, work)
    assert {row["key"] for row in clusters if not row["survivor"]} == set(drops)
    assert all(row["difference"] <= 0.002 and row["distance"] == -1 for row in clusters)
    assert all(row["cluster"] in drops[row["key"]]["detail"] for row in clusters
               if not row["survivor"])  # fmt: skip


@pytest.mark.parametrize("shards", [1, 7])
def test_the_split_over_shards_makes_no_difference(case, shards):
    work, samples, ranker = case
    first = dedup_semantic(add_samples(work, samples, 3), ranker, PARAMS, work)
    second = dedup_semantic(add_samples(work, samples, shards), ranker, PARAMS, work)

    assert samples_of(first.kept, work) == samples_of(second.kept, work)
    assert first.clusters == second.clusters


def test_what_is_there_from_earlier_does_not_come_back(case):
    work, samples, ranker = case
    copies = [sample for sample in samples if "copy" in name_of(sample)]
    old = [sample for sample in samples if "copy" not in name_of(sample)]
    fresh = make_sample("fresh", saved(next(random_pairs(1, seed=99)).picture))
    first = dedup_semantic(add_samples(work, old, 2), ranker, PARAMS, work)
    second = dedup_semantic(
        add_samples(work, [*copies, fresh], 2), ranker, PARAMS, work, earlier=first.embeddings
    )

    assert list(samples_of(second.kept, work)) == [fresh.key]
    drops = rows(second.drops, DROP_SCHEMA, work)
    assert all("of an earlier collection" in row["detail"] for row in drops) and len(drops) == 10


def test_features_of_another_model_are_not_compared(case):
    work, samples, ranker = case
    first = dedup_semantic(add_samples(work, samples), ranker, PARAMS, work)
    other = add_ranker(work, 300, seed=5)

    with pytest.raises(PermanentError, match="use the same ranker for both"):
        dedup_semantic(add_samples(work, samples), other, PARAMS, work, earlier=first.embeddings)
