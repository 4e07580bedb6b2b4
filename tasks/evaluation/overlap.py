"""Which pictures to evaluate on are in the training set, too (section 3.1 and appendix C).

As in the paper: a contrastive model's features of both, for each picture the nearest training
picture, and a threshold that a person has chosen by looking (`overlap.png` shows those around it).
A worker holds one shard's features at a time, and one row for each picture to evaluate on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.work import ShardWork, Work
from schemas.artifact import Unit
from tasks.devices import steady_threads
from tasks.evaluation.describing import feature_name, read_features, read_words
from tasks.evaluation.features import FEATURES, Extractor
from tasks.prepared import pixels
from tasks.sheets import Cell, Row, draw_sheet

_BATCH = 256  # training pictures at a time
_BESIDE = 8  # pairs that are shown on either side of the threshold

OVERLAPS = "overlap.jsonl"  # each picture to evaluate on, its nearest training picture, the cosine


@dataclass(frozen=True)
class Nearest:
    """For each picture to evaluate on: its key, the nearest training picture's, and the cosine."""

    keys: tuple[str, ...]
    training_keys: tuple[str, ...]
    cosines: np.ndarray
    units: np.ndarray  # in which training shard it is
    threshold: float

    @property
    def overlaps(self) -> np.ndarray:
        """Which pictures count as training pictures, bool [M]."""
        return np.asarray(self.cosines >= self.threshold)

    def metrics(self, name: str) -> dict[str, float]:
        """How many overlap."""
        overlaps = self.overlaps
        return {f"overlap/{name}/count": float(overlaps.sum()),
                f"overlap/{name}/share": float(overlaps.mean())}  # fmt: skip

    def write(self, path: Path) -> Path:
        """A line of JSON for each picture, the most alike first."""
        order = np.argsort(-self.cosines, kind="stable")
        rows = (
            {"key": self.keys[i], "nearest_training_key": self.training_keys[i],
             "cosine": round(float(self.cosines[i]), 6), "overlaps": bool(self.overlaps[i])}
            for i in order
        )  # fmt: skip
        path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        return path

    def around(self) -> list[int]:
        """Pictures whose cosines are next to the threshold, the most alike first."""
        order = np.argsort(-self.cosines, kind="stable")
        above = int(self.overlaps.sum())
        return [int(i) for i in order[max(0, above - _BESIDE) : above + _BESIDE]]


def find_nearest(
    reference: Sequence[Unit], training: Sequence[Unit], extractor: Extractor, side: int,
    threshold: float, work: Work,
) -> Nearest:  # fmt: skip
    """Look through all training shards for each picture of the reference's files of features."""
    mapped = work.map(
        nearest_in_shard, training, reference=tuple(reference), extractor=extractor, side=side
    )
    paths = [work.fetch(unit) for unit in reference]
    keys = tuple(read_words(paths, "keys"))
    best = np.full(len(keys), -2.0, dtype=np.float32)
    names = np.zeros((len(keys), 16), dtype=np.uint8)
    units = np.zeros(len(keys), dtype=np.int64)
    for number, made in enumerate(mapped.outputs):
        for unit in made.get("nearest", ()):  # a shard without pictures has none
            found = load_file(work.fetch(unit))
            nearer = found["cosines"] > best
            best[nearer], names[nearer] = found["cosines"][nearer], found["keys"][nearer]
            units[nearer] = number
    if (best < -1.5).any():
        raise PermanentError("images: there is not one training picture to look for")
    return Nearest(keys, tuple(row.tobytes().hex() for row in names), best, units, threshold)


def nearest_in_shard(
    unit: Unit, shard: ShardWork, *, reference: tuple[Unit, ...], extractor: Extractor, side: int
) -> None:
    """The nearest picture of one training shard for each picture of the reference."""
    asked = read_features([shard.fetch(one) for one in reference], feature_name(0))
    best = np.full(len(asked), -2.0, dtype=np.float32)
    keys = np.zeros((len(asked), 16), dtype=np.uint8)
    with steady_threads():
        features = extractor.load(shard)
        for batch in _batches(read_shard(shard.fetch(unit))):
            pictures = np.stack([pixels(sample, side) for sample in batch])
            cosines = asked @ features.describe(pictures)[FEATURES].T
            place = cosines.argmax(axis=1)
            value = np.take_along_axis(cosines, place[:, None], axis=1)[:, 0]
            nearer = value > best
            names = np.frombuffer(bytes.fromhex("".join(one.key for one in batch)), np.uint8)
            best[nearer] = value[nearer]
            keys[nearer] = names.reshape(-1, 16)[place[nearer]]
    if (best > -1.5).any():
        path = shard.scratch / f"nearest-{Path(unit.name).stem}.safetensors"
        save_file({"cosines": best, "keys": keys}, path)
        shard.add("nearest", path, path.name, len(best))


def draw_overlaps(
    nearest: Nearest, reference: Iterable[Path], training: Sequence[Unit], side: int, work: Work
) -> Any:
    """A sheet of pairs around the threshold: to evaluate on, and its nearest training picture."""
    chosen = nearest.around()
    left = _find((path for path in reference), {nearest.keys[i] for i in chosen})
    shards = sorted({int(nearest.units[i]) for i in chosen})
    right = _find(
        (work.fetch(training[number]) for number in shards),
        {nearest.training_keys[i] for i in chosen},
    )
    rows = []
    for i in chosen:
        pair = left[nearest.keys[i]], right[nearest.training_keys[i]]
        cells = [Cell(pixels(sample, side), bool(nearest.overlaps[i])) for sample in pair]
        captions = [sample.caption for sample in pair]
        rows.append(Row(f"cosine {nearest.cosines[i]:.4f}", cells, captions))
    title = f"evaluated on, and nearest in training: one picture from {nearest.threshold:g} on"
    return draw_sheet(title, rows)


def _find(shards: Iterable[Path], keys: set[str]) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for path in shards:
        found |= {sample.key: sample for sample in read_shard(path) if sample.key in keys}
        if len(found) == len(keys):
            break
    return found


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    stream = iter(samples)
    while batch := list(islice(stream, _BATCH)):
        yield batch
