"""Keep one pair for each caption, where captions that are nearly the same count as one.

For collections in which a caption that comes again adds nothing; many pictures of "a red circle"
are no fault by themselves, so this is for who asks for it. Resemblance is that of MinHash
(`tasks.dedup.minhash`): signatures that share a band are compared. What resembles what resembles it
is one group; its longest caption stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from infra.disk import mapped_array
from infra.tables import read_table, write_table
from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, PairTable, Unit
from schemas.records import CLUSTER_SCHEMA, PAIR_SCHEMA, DropReason
from schemas.stage import StageParams, stage
from tasks.dedup.clusters import Components
from tasks.dedup.minhash import PLACES, band_rows, resemblance, signatures
from tasks.dedup.near_pairs import in_runs
from tasks.dedup.rewriting import rewrite_pairs
from tasks.dedup.same_pairs import ROW, Tied, plans, tie
from tasks.dedup_urls import DistinctPairs
from tasks.funnel import tally

STAGE = "dedup_captions"
_COMPARED = 1 << 14  # pairs of signatures in memory at a time


class DedupCaptionsParams(StageParams):
    """When two captions count as one.

    Attributes:
        similarity: share of the character 5-grams of both that both have, at least; as estimated.
    """

    similarity: float = Field(default=0.8, gt=0, le=1)


@stage(retries=2, memory_gb=4.0, versions=("numpy", "pyarrow", "scipy"))
def dedup_captions(
    pairs: PairTable, params: DedupCaptionsParams, work: Work, earlier: PairTable | None = None
) -> DistinctPairs:
    """Keep one pair for each caption, and none for one of an earlier collection."""
    described = work.map(sign_part, pairs.units, earlier=False).units("signatures")
    before = work.map(sign_part, earlier.units if earlier else (), earlier=True).units("signatures")
    rows, signed = _load((*described, *before), work)
    tied = _tied(rows, signed, params.similarity)
    words = "caption like that of"
    planned = plans(pairs.units, *tied.dropped(), DropReason.DUPLICATE_CAPTION, words, work)
    kept, drops = rewrite_pairs(pairs.units, planned, STAGE, work)
    path = work.scratch / "clusters.parquet"
    count = write_table(path, tied.table(DropReason.DUPLICATE_CAPTION), CLUSTER_SCHEMA)
    tally(STAGE, kept, drops, work)
    return DistinctPairs(kept, drops, ClusterTable(units=(work.add(path, path.name, count),)))


def sign_part(unit: Unit, shard: ShardWork, earlier: bool) -> None:
    """The signatures of one part, and what the survivor is chosen by."""
    pairs = list(read_table(shard.fetch(unit), PAIR_SCHEMA))
    found = np.zeros(len(pairs), dtype=[("row", ROW), ("signature", "<u4", (PLACES,))])
    found["signature"] = signatures([pair["caption"] for pair in pairs])
    for row, pair in zip(found["row"], pairs, strict=True):
        row["key"], row["length"] = bytes.fromhex(pair["key"]), len(pair["caption"])
        row["earlier"] = earlier
    path = shard.scratch / f"{unit.name}.npy"
    np.save(path, found)
    shard.add("signatures", path, path.name, len(found))


def _load(units: Sequence[Unit], work: Work) -> tuple[np.ndarray, np.ndarray]:
    """All rows in key order, and their signatures, which stay on disk."""
    parts = [np.load(work.fetch(unit), mmap_mode="r") for unit in units]
    rows = np.concatenate([np.zeros(0, ROW), *(part["row"] for part in parts)])
    order = np.lexsort((rows["earlier"], rows["key"]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    shape = (max(len(rows), 1), PLACES)  # a file of no bytes cannot be mapped
    signed = mapped_array(work.scratch / "signatures", np.dtype("<u4"), shape)
    start = 0
    for part in parts:
        signed[place[start : start + len(part)]] = part["signature"]
        start += len(part)
    return rows[order], signed[: len(rows)]


def _tied(rows: np.ndarray, signed: np.ndarray, similarity: float) -> Tied:
    components = Components(len(rows))
    every = np.arange(len(rows))
    # Equal captions first: of each group one goes on, so that a caption of thousands costs no more.
    _, first, inverse = np.unique(_band(signed), return_index=True, return_inverse=True)
    components.tie(every, first[inverse.ravel()])
    distinct = np.sort(first)
    size = band_rows(similarity)
    for start in range(0, PLACES, size):
        band = _band(signed[distinct, start : start + size])
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(band[order]) != 0)[: len(order)])
        for left, right in in_runs(starts, len(order)):
            one, other = distinct[order[left]], distinct[order[right]]
            news = components.apart(one, other)
            one, other = one[news], other[news]
            near = _resemblance(signed, one, other) >= similarity
            components.tie(one[near], other[near])
    numbered = rows.copy()
    numbered["group"] = every  # to find the signatures again
    tied = tie(numbered, components.labels())
    mine, best = (of["group"].astype(np.int64) for of in (tied.rows, tied.survivors))
    return Tied(tied.rows, tied.survivors, 1 - _resemblance(signed, mine, best))


def _resemblance(signed: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of the signatures at these places, pair by pair, float64 [N]."""
    found = np.zeros(len(left))
    for start in range(0, len(left), _COMPARED):
        part = slice(start, start + _COMPARED)
        found[part] = resemblance(signed[left[part]], signed[right[part]])
    return found


def _band(signed: np.ndarray) -> np.ndarray:
    """A hash of some columns of signatures, uint64 [N]."""
    found = np.zeros(len(signed), dtype=np.uint64)
    for column in range(signed.shape[1]):
        found = (found ^ signed[:, column]) * np.uint64(0x100000001B3)
        found ^= found >> np.uint64(32)
    return found
