"""The nearest training picture of each picture to evaluate on, by features or any other way.

By features, as in the paper (section 3.1), it is the one with the largest cosine in a contrastive
model. A worker holds one batch of a training shard at a time, and one row for each picture to
evaluate on. Of equally near pictures the one with the smallest key is named, however they lie in
shards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.work import Mapped, ShardWork, Work
from schemas.artifact import Unit
from tasks.devices import steady_threads
from tasks.evaluation.describing import feature_name, read_features
from tasks.evaluation.features import FEATURES, Extractor
from tasks.prepared import pixels

_BATCH = 256  # training pictures at a time


@dataclass(frozen=True)
class Nearest(ABC):
    """For each of M pictures to evaluate on its nearest training picture.

    Attributes:
        name: whose features they were compared by, or `hash`.
        keys: of the training pictures, "S16" [M].
        units: the numbers of the training shards they are in, int64 [M].
        nearness: the larger, the more alike, float32 [M].
        bound: from which on a person takes them for one picture, as it was declared.
    """

    name: str
    keys: np.ndarray
    units: np.ndarray
    nearness: np.ndarray
    bound: float

    field: ClassVar[str]  # of the comparison, that declares the bound

    @property
    @abstractmethod
    def overlaps(self) -> np.ndarray:
        """Which pictures count as training pictures, bool [M]."""

    @property
    @abstractmethod
    def said_bound(self) -> str:
        """The bound in words."""

    @abstractmethod
    def said(self, place: int) -> str:
        """How near one is, in words."""

    @abstractmethod
    def row(self, place: int) -> dict[str, object]:
        """The nearest of one and how near it is, for a line of JSON."""

    @property
    def order(self) -> np.ndarray:
        """All places, the most alike first."""
        return np.argsort(-self.nearness, kind="stable")

    def key(self, place: int) -> str:
        """The nearest training picture of one."""
        return bytes(self.keys[place]).ljust(16, b"\0").hex()  # numpy leaves out zeros at the end


class NearestFeatures(Nearest):
    """By the cosine of their features, which is the nearness."""

    field = "overlap"

    @property
    def overlaps(self) -> np.ndarray:
        """From the bound on."""
        return np.asarray(self.nearness >= self.bound)

    @property
    def said_bound(self) -> str:
        """The least cosine."""
        return f"from a cosine of {self.bound:g} on"

    def said(self, place: int) -> str:
        """The cosine."""
        return f"cosine {self.nearness[place]:.4f}"

    def row(self, place: int) -> dict[str, object]:
        """`nearest_training_key` and `cosine`."""
        cosine = round(float(self.nearness[place]), 6)
        return {"nearest_training_key": self.key(place), "cosine": cosine}


def nearest_by_features(
    reference: Sequence[Unit], training: Sequence[Unit], extractor: Extractor, side: int,
    bound: float, work: Work,
) -> NearestFeatures:  # fmt: skip
    """Look through all training shards for each picture of the reference's files of features."""
    mapped = work.map(
        nearest_in_shard, training, reference=tuple(reference), extractor=extractor, side=side
    )
    best = nearest_of_all(mapped, work)
    return NearestFeatures(extractor.name, best["keys"], best["units"], best["nearness"], bound)


def nearest_of_all(mapped: Mapped, work: Work) -> dict[str, np.ndarray]:
    """The rows of the nearest in any shard: keys, numbers of shards (`units`), nearness, others."""
    best: dict[str, np.ndarray] = {}
    for number, made in enumerate(mapped.outputs):
        for unit in made.get("nearest", ()):  # a shard without pictures has none
            here = load_file(work.fetch(unit))
            here["keys"] = here["keys"].view("S16")[:, 0]
            here["units"] = np.full(len(here["keys"]), number)
            if best:
                equal = (here["nearness"] == best["nearness"]) & (here["keys"] < best["keys"])
                nearer = (here["nearness"] > best["nearness"]) | equal
                here = {name: np.where(nearer, here[name], best[name]) for name in best}
            best = here
    if not best:
        raise PermanentError("images: there is not one training picture to look for")
    return best


def nearest_in_shard(
    unit: Unit, shard: ShardWork, *, reference: tuple[Unit, ...], extractor: Extractor, side: int
) -> None:
    """By features, the nearest picture of one training shard for each of the reference."""
    asked = read_features([shard.fetch(one) for one in reference], feature_name(0))
    best = np.full(len(asked), -np.inf, dtype=np.float32)
    keys = np.zeros(len(asked), dtype="S16")
    with steady_threads():
        features = extractor.load(shard)
        for batch in _batches(read_shard(shard.fetch(unit))):
            pictures = np.stack([pixels(sample, side) for sample in batch])
            cosines = asked @ features.describe(pictures)[FEATURES].T
            place = cosines.argmax(axis=1)
            value = np.take_along_axis(cosines, place[:, None], axis=1)[:, 0]
            nearer = value > best
            names = np.array([bytes.fromhex(sample.key) for sample in batch], dtype="S16")
            best[nearer], keys[nearer] = value[nearer], names[place[nearer]]
    if np.isfinite(best).any():
        add_nearest(shard, unit, keys, best)


def add_nearest(
    shard: ShardWork, unit: Unit, keys: np.ndarray, nearness: np.ndarray, **columns: np.ndarray
) -> None:
    """Store what one training shard has for each: keys, nearness, and what else is to be said."""
    path = shard.scratch / f"nearest-{Path(unit.name).stem}.safetensors"
    names = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)
    save_file({"keys": names, "nearness": nearness, **columns}, path)
    shard.add("nearest", path, path.name, len(keys))


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    stream = iter(samples)
    while batch := list(islice(stream, _BATCH)):
        yield batch
