"""Drop pairs whose picture is there already: the same bytes, or the same to the eye.

Every shard is described by itself (hash, thumbnail, area), clusters are found over all of them, and
only shards that lose a pair are written anew. See `tasks.dedup.picture_hash` and
`tasks.dedup.clusters`. The descriptions are an output: given to a later collection as `earlier`,
they keep what is there already from coming back. Pictures to evaluate on, given as `evaluation`,
are described alike, and what is the same as one of them is not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from infra.disk import mapped_array
from infra.errors import PermanentError
from infra.tables import write_table
from infra.work import Work
from schemas.artifact import (
    ClusterTable,
    DropTable,
    EvaluationPairs,
    ImageShards,
    PictureFeatures,
    Unit,
)  # fmt: skip
from schemas.records import CLUSTER_SCHEMA
from schemas.stage import StageParams, stage
from tasks.dedup.clusters import Clusters, Features, Origin, find_clusters, hex_of
from tasks.dedup.described import (
    describe_shard,
    nothing_described,
    read_described,
    read_thumbnails,
)
from tasks.dedup.picture_hash import THUMBNAIL_BYTES, Likeness
from tasks.dedup.rewriting import plan, rewrite
from tasks.funnel import tally

STAGE = "dedup_images"


class DedupParams(Likeness, StageParams):
    """When two pictures count as the same to the eye.

    Measured on the demo's web (seed 1): with the defaults 1 of 386 copies stays and 1 of 6,436
    different drawings goes. No mean difference separates them wholly: copies are up to 2.7 levels
    apart, two drawings of one small shape 2.3 and more.

    Attributes:
        distance: bits of 256 in which their hashes may differ.
    """

    distance: int = Field(default=16, ge=0, le=64)


class Deduplicated(NamedTuple):
    """One pair for each picture, the others, what belonged together, and all descriptions."""

    kept: ImageShards
    drops: DropTable
    clusters: ClusterTable
    features: PictureFeatures


@stage(retries=2, cores=2, memory_gb=2.0, versions=("pillow", "numpy", "pyarrow", "scipy"))
def dedup_images(
    images: ImageShards, params: DedupParams, work: Work, earlier: PictureFeatures | None = None,
    evaluation: EvaluationPairs | None = None,
) -> Deduplicated:  # fmt: skip
    """Keep one pair for each picture, and none for a picture of an earlier collection.

    Args:
        earlier: the descriptions that an earlier collection gave.
        evaluation: a set to evaluate on; no pair is kept for a picture of it. It is no part of the
            descriptions that are given: a later collection is held against its own set. Pictures
            that an earlier collection has seen and that are in it are counted
            (`earlier_in_evaluation`).

    Raises:
        PermanentError: if a picture cannot be decoded, the set to evaluate on has none, or no pair
            is left.
    """
    described = work.map(describe_shard, images.units).units("features")
    before = earlier.units if earlier else ()
    apart = _describe_evaluation(evaluation, work) if evaluation else ()
    features, places = _features(
        {Origin.NEW: described, Origin.EARLIER: before, Origin.EVALUATION: apart}, work
    )
    clusters = find_clusters(features, params.distance, params)
    plans = _plans(images.units, places, clusters, work)
    kept, drops = rewrite(images.units, plans, STAGE, work)
    path = work.scratch / "clusters.parquet"
    table = work.add(path, path.name, write_table(path, clusters.rows(), CLUSTER_SCHEMA))
    found = Deduplicated(
        kept, drops, ClusterTable(units=(table,)), PictureFeatures(units=(*before, *described))
    )
    work.count("clusters", clusters.count)
    if earlier and evaluation:
        _say_what_was_seen(clusters.earlier_in_evaluation, work)
    tally(STAGE, found.kept, found.drops, work)
    return found


def _say_what_was_seen(count: int, work: Work) -> None:
    work.count("earlier_in_evaluation", count)
    if count:
        work.message(
            f"evaluation: {count} pictures that the earlier collection has seen are the same as one"
            " of this set; evaluate what was trained on them with comparison.overlap_bits"
        )


def _describe_evaluation(evaluation: EvaluationPairs, work: Work) -> tuple[Unit, ...]:
    described = work.map(describe_shard, evaluation.units).units("features")
    if not sum(unit.records or 0 for unit in described):
        raise PermanentError(
            "evaluation: there is not one picture in this set to keep out of training; give one"
            " that has some, or leave this input out"
        )
    return described


def _features(
    units: Mapping[Origin, Sequence[Unit]], work: Work
) -> tuple[Features, list[np.ndarray]]:
    """The features of all shards in key order, and where in it each new shard's pictures are.

    Thumbnails stay on disk; the rest takes 100 bytes a picture.
    """
    every = [unit for some in units.values() for unit in some]
    origins = [origin for origin, some in units.items() for _ in some]
    columns = [read_described(work.fetch(unit)) for unit in every]
    sizes = np.array([len(one.keys) for one in columns], dtype=np.int64)
    keys, sha256, area, hashes = (
        np.concatenate(column) for column in zip(nothing_described(), *columns, strict=True)
    )
    origin = np.repeat(np.array(origins, dtype=np.int8), sizes)
    halves = keys.view(">u8").reshape(-1, 2)
    order = np.lexsort((origin, halves[:, 1], halves[:, 0]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    places = np.split(place, np.cumsum(sizes))[:-1]  # the last part is what follows all of them
    features = Features(
        keys[order], sha256[order], area[order], hashes[order],
        _thumbnails(every, places, work), origin[order],
    )  # fmt: skip
    return features, places[: len(units[Origin.NEW])]


def _thumbnails(units: Sequence[Unit], places: Sequence[np.ndarray], work: Work) -> np.ndarray:
    total = sum(map(len, places))
    shape = (max(total, 1), THUMBNAIL_BYTES)  # a file of no bytes cannot be mapped
    found = mapped_array(work.scratch / "thumbnails", np.uint8, shape)
    for unit, place in zip(units, places, strict=True):
        found[place] = read_thumbnails(work.fetch(unit))
    return found[:total]


def _plans(
    units: Sequence[Unit], places: Sequence[np.ndarray], clusters: Clusters, work: Work
) -> list[Unit | None]:
    """For each shard that loses pairs a unit that says which and why."""
    dropped, numbers = clusters.dropped()
    plans = []
    for unit, place in zip(units, places, strict=True):
        chosen = place[np.isin(place, dropped)]
        found = numbers[np.searchsorted(dropped, chosen)]
        keys = (hex_of(clusters.features.keys, one) for one in chosen)
        reasons = (list(clusters.why(number)) for number in found)
        plans.append(plan(unit, dict(zip(keys, reasons, strict=True)), work))
    return plans
