"""Keep one pair for each image URL, before anything is fetched.

One picture may stand on many pages with many captions; the longest caption stays, or, on a
schedule, that which was there first, so that no later month takes a pair from an earlier one. Pairs
of other collections, given as `earlier`, keep their URLs from being collected again. URLs are
compared by 64 bits of a hash, a range of them at a time, so that memory is bounded.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from infra.tables import TableWriter, read_table
from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, DropTable, PairTable, Unit
from schemas.records import CLUSTER_SCHEMA, PAIR_SCHEMA, DropReason
from schemas.stage import StageParams, stage
from tasks.dedup.hash_groups import hash_text, whole_groups, write_groups
from tasks.dedup.rewriting import rewrite_pairs
from tasks.dedup.same_pairs import ROW, longest, plans, tie
from tasks.funnel import tally

STAGE = "dedup_urls"


class DedupUrlsParams(StageParams):
    """Which pair of a URL stays.

    Attributes:
        stays: the one with the "longest" caption in the whole table; or the "first", that is the
            longest in the first part, in the table's order, that has the URL. Of equally long
            captions that with the smallest key.
    """

    stays: Literal["longest", "first"] = "longest"


class DistinctPairs(NamedTuple):
    """The pairs that stay, the others, and what belonged together."""

    kept: PairTable
    drops: DropTable
    clusters: ClusterTable


@stage(retries=2, memory_gb=2.0, versions=("numpy", "pyarrow"))
def dedup_urls(
    pairs: PairTable, params: DedupUrlsParams, work: Work, earlier: PairTable | None = None
) -> DistinctPairs:
    """Keep one pair for each image URL, and none for a URL of an earlier collection."""
    described = work.map(describe_part, pairs.units, earlier=False).units("urls")
    before = work.map(describe_part, earlier.units if earlier else (), earlier=True).units("urls")
    dropped, survivors = [np.zeros(0, ROW)], [np.zeros(0, ROW)]
    path = work.scratch / "clusters.parquet"
    with TableWriter(path, CLUSTER_SCHEMA) as table:
        for rows in whole_groups([work.fetch(unit) for unit in (*described, *before)]):
            # By group; within a group by part, and of a part as it was described.
            tied = tie(rows, rows["group"], ordered=params.stays == "first")
            for row in tied.table(DropReason.DUPLICATE_URL):
                table.write(row)
            for kind, found in zip((dropped, survivors), tied.dropped(), strict=True):
                kind.append(found)
    planned = plans(
        pairs.units, np.concatenate(dropped), np.concatenate(survivors),
        DropReason.DUPLICATE_URL, "same image URL as", work,
    )  # fmt: skip
    kept, drops = rewrite_pairs(pairs.units, planned, STAGE, work)
    clusters = ClusterTable(units=(work.add(path, path.name, table.rows),))
    tally(STAGE, kept, drops, work)
    return DistinctPairs(kept, drops, clusters)


def describe_part(unit: Unit, shard: ShardWork, earlier: bool) -> None:
    """The URLs of one part as hashes, with what the survivor is chosen by, the longest first."""
    found = [
        (hash_text(pair["image_url"]), bytes.fromhex(pair["key"]), len(pair["caption"]), earlier)
        for pair in read_table(shard.fetch(unit), PAIR_SCHEMA)
    ]
    path = shard.scratch / f"{unit.name}.npy"
    rows = np.array(found, dtype=ROW)
    write_groups(path, rows[np.lexsort(longest(rows))])
    shard.add("urls", path, path.name, len(rows))
