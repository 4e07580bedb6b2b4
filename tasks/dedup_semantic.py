"""Drop pairs whose picture means the same as another's: near in a contrastive model's features.

As in SemDeDup (Abbas et al., arXiv 2303.09540): features are put into cells by k-means, and cosines
are compared within each cell; what lies in two cells is not compared. It differs in which stays:
pictures of earlier collections, then the largest area, then the smallest key. Pictures are looked
at in that order, and one that is near one that stays goes; so each is within the bound of its own
survivor, and no chain of small differences ties what is far apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field
from safetensors import safe_open
from safetensors.numpy import save_file

from infra.disk import mapped_array
from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.tables import write_table
from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, DropTable, Embeddings, ImageShards, Ranker, Unit
from schemas.records import CLUSTER_SCHEMA, DropReason
from schemas.stage import stage
from tasks.dedup.kmeans import assign_cells
from tasks.dedup.rewriting import plan, rewrite
from tasks.devices import steady_threads
from tasks.embedding import Encoder, batches
from tasks.funnel import tally
from tasks.networks import NetworkParams
from tasks.pictures import decode

STAGE = "dedup_semantic"
_IN_CELL = 4096  # pictures that k-means is to put into a cell
_BLOCK = 512  # pictures that are compared with all before them at a time
_DIGITS = 5  # of cosines: what other sums of the same numbers may change is beyond them


class DedupSemanticParams(NetworkParams):
    """When two pictures mean the same.

    Attributes:
        cosine: of their features, at least.
        cells: of k-means; by default one for 4,096 pictures.
    """

    networks: tuple[str, ...] = ("clip",)
    cosine: float = Field(default=0.95, gt=0, le=1)
    cells: int | None = Field(default=None, ge=1)


class Distinct(NamedTuple):
    """The pairs that stay, the others, what belonged together, and all features."""

    kept: ImageShards
    drops: DropTable
    clusters: ClusterTable
    embeddings: Embeddings


class Pictures(NamedTuple):
    """Columns of all pictures, in key order.

    Attributes:
        keys: uint8 [N, 16]; sha256: uint8 [N, 32]; area: pixels, int64 [N]; earlier: bool [N].
        features: of length 1, float16 [N, D], on disk.
    """

    keys: np.ndarray
    sha256: np.ndarray
    area: np.ndarray
    earlier: np.ndarray
    features: np.ndarray

    def key(self, place: int) -> str:
        """The text of a key."""
        return self.keys[place].tobytes().hex()


@stage(retries=2, cores=2, memory_gb=4.0, versions=("torch", "pillow", "open-clip-torch", "numpy"))
def dedup_semantic(
    images: ImageShards, ranker: Ranker, params: DedupSemanticParams, work: Work,
    earlier: Embeddings | None = None,
) -> Distinct:  # fmt: skip
    """Keep one pair for each meaning, and none for one of an earlier collection."""
    params.check(work.fetch(ranker.units[0]))
    if not images.units:
        raise PermanentError("images: there is not one picture to look at")
    embedded = work.map(embed_shard, images.units, ranker=ranker.units[0]).units("embeddings")
    before = earlier.units if earlier else ()
    pictures, places = _load((*embedded, *before), len(embedded), work)
    with steady_threads():
        survivors, cosines = find_survivors(pictures, params.cosine, params.cells)
    plans = [
        plan(unit, _dropped(pictures, place, survivors, cosines), work)
        for unit, place in zip(images.units, places, strict=False)
    ]
    kept, drops = rewrite(images.units, plans, STAGE, work)
    path = work.scratch / "clusters.parquet"
    count = write_table(path, _rows(pictures, survivors, cosines), CLUSTER_SCHEMA)
    clusters = ClusterTable(units=(work.add(path, path.name, count),))
    tally(STAGE, kept, drops, work)
    return Distinct(kept, drops, clusters, Embeddings(units=(*before, *embedded)))


def embed_shard(unit: Unit, shard: ShardWork, ranker: Unit) -> None:
    """The features of the pictures of one shard, in its order."""
    columns: dict[str, list[np.ndarray]] = {}
    with steady_threads():
        encoder = Encoder(shard.fetch(ranker), None)
        for samples in batches(read_shard(shard.fetch(unit))):
            for name, values in _describe(samples, encoder).items():
                columns.setdefault(name, []).append(values)
    path = shard.scratch / f"{Path(unit.name).stem}.safetensors"
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    save_file(arrays, path, {"ranker": ranker.sha256})
    shard.add("embeddings", path, path.name, len(arrays.get("area", ())))


def _describe(samples: list[Sample], encoder: Encoder) -> dict[str, np.ndarray]:
    keys = b"".join(bytes.fromhex(sample.key) for sample in samples)
    sha256 = b"".join(bytes.fromhex(_sha256(sample)) for sample in samples)
    return {
        "keys": np.frombuffer(keys, np.uint8).reshape(-1, 16),
        "sha256": np.frombuffer(sha256, np.uint8).reshape(-1, 32),
        "area": np.array([_area(sample) for sample in samples], dtype=np.int64),
        "features": encoder.images(samples).astype(np.float16),
    }


def _sha256(sample: Sample) -> str:
    return str(sample.record.get("sha256") or hashlib.sha256(sample.image).hexdigest())


def _area(sample: Sample) -> int:
    width, height = sample.record.get("width"), sample.record.get("height")
    if not width or not height:  # it did not come through filter_images
        width, height = decode(sample.image).size
    return int(width) * int(height)


def _load(units: Sequence[Unit], new: int, work: Work) -> tuple[Pictures, list[np.ndarray]]:
    """The columns of all files, and where each file's pictures are in them."""
    paths = [path for path in map(work.fetch, units) if _require_same(path, work.fetch(units[0]))]
    columns = {name: _column(paths, name) for name in ("keys", "sha256", "area")}
    sizes = [len(_column([path], "area")) for path in paths]
    earlier = np.repeat([number >= new for number in range(len(paths))], sizes)
    halves = columns["keys"].view(">u8").reshape(-1, 2)
    order = np.lexsort((earlier, halves[:, 1], halves[:, 0]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    places = np.split(place, np.cumsum(sizes)[:-1])
    features: np.ndarray | None = None
    for path, here in zip(paths, places, strict=True):
        part = _column([path], "features")
        if features is None:
            shape = (len(order), part.shape[1])
            features = mapped_array(work.scratch / "features", np.float16, shape)
        features[here] = part
    assert features is not None
    ordered = {name: column[order] for name, column in columns.items()}
    return Pictures(**ordered, earlier=earlier[order], features=features), places


def _require_same(path: Path, first: Path) -> bool:
    """True; features of two models have nothing in common."""
    rankers = []
    for one in (path, first):
        with safe_open(one, framework="np") as file:
            rankers.append((file.metadata() or {}).get("ranker", ""))
    if rankers[0] != rankers[1]:
        raise PermanentError(
            f"earlier: its features are of the ranker {rankers[0][:12]}…, those of this collection"
            f" of {rankers[1][:12]}…; use the same ranker for both"
        )
    return True


def _column(paths: Sequence[Path], name: str) -> np.ndarray:
    parts = []
    for path in paths:
        with safe_open(path, framework="np") as file:
            parts.append(file.get_tensor(name))
    return np.concatenate(parts)


def find_survivors(
    pictures: Pictures, cosine: float, cells: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each picture the one that stays for it, int64 [N], which may be itself; and their cosine.

    Each cell is looked at by itself, its best picture first.
    """
    count = len(pictures.area)
    cell = assign_cells(pictures.features, min(cells or -(-count // _IN_CELL), count))
    order = np.lexsort((np.arange(count), -pictures.area, ~pictures.earlier, cell))
    edges = np.flatnonzero(np.diff(cell[order])) + 1
    survivors, cosines = np.arange(count), np.ones(count)
    for members in np.split(order, edges):
        best, near = _in_cell(pictures, members, cosine)
        survivors[members], cosines[members] = members[best], near
    return survivors, cosines


def _in_cell(
    pictures: Pictures, members: np.ndarray, cosine: float
) -> tuple[np.ndarray, np.ndarray]:
    """The same for the members of a cell, best first, as places among them."""
    best, near = np.arange(len(members)), np.ones(len(members))
    features = np.asarray(pictures.features[members], dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    stays = np.ones(len(members), dtype=bool)
    for start in range(int(pictures.earlier[members].sum()), len(members), _BLOCK):
        end = min(start + _BLOCK, len(members))
        cosines = (features[start:end] @ features[:end].T).round(_DIGITS)
        close = cosines >= cosine
        for row in np.flatnonzero(close.sum(axis=1) > 1):
            mine = start + int(row)
            fitting = np.flatnonzero(close[row, :mine] & stays[:mine])
            if len(fitting):
                stays[mine] = False
                best[mine] = fitting[0]
                near[mine] = cosines[row, fitting[0]]
    return best, near


def _dropped(
    pictures: Pictures, places: np.ndarray, survivors: np.ndarray, cosines: np.ndarray
) -> dict[str, list[str]]:
    """By key why a pair of a shard is dropped."""
    found = {}
    for place in places[survivors[places] != places]:
        survivor = pictures.key(survivors[place])
        survivor += " of an earlier collection" * bool(pictures.earlier[survivors[place]])
        detail = f"like {survivor}: cosine {cosines[place]:.3f}"
        found[pictures.key(place)] = [str(DropReason.SEMANTIC_DUPLICATE), detail]
    return found


def _rows(
    pictures: Pictures, survivors: np.ndarray, cosines: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Rows of `CLUSTER_SCHEMA`, cluster by cluster."""
    lost = np.flatnonzero(survivors != np.arange(len(survivors)))
    members = np.concatenate([lost, np.unique(survivors[lost])])
    for place in members[np.lexsort((members, survivors[members]))]:
        survivor = int(survivors[place])
        rule = "earlier" if pictures.earlier[place] else "survivor"
        yield {
            "cluster": pictures.key(survivor), "key": pictures.key(place),
            "survivor": survivor == place,
            "rule": rule if survivor == place else str(DropReason.SEMANTIC_DUPLICATE),
            "sha256": pictures.sha256[place].tobytes().hex(), "area": int(pictures.area[place]),
            "distance": -1, "difference": round(1 - float(cosines[place]), _DIGITS),
        }  # fmt: skip
