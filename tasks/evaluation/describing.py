"""Pictures of units turned into features, a worker a unit.

A file of features is safetensors with `features/RADIUS` float32 [N, D] for each radius of blur,
`logits/RADIUS` where the network has them, and keys and captions in the metadata. Which pictures
of a unit are wanted stands in a plan, a unit of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from infra.shards import read_shard
from infra.work import ShardWork
from schemas.artifact import Unit
from tasks.candidates import read_candidates
from tasks.devices import steady_threads
from tasks.evaluation.features import FEATURES, Extractor, Features, RankerFeatures, blurred
from tasks.evaluation.originals import reconstruct
from tasks.prepared import pixels

_METADATA = "tapir"


def feature_name(radius: float, what: str = FEATURES) -> str:
    """What an array is called in a file of features."""
    return f"{what}/{radius:g}"


def describe_drawn(
    plan: Unit, shard: ShardWork, *, extractor: Extractor, radii: tuple[float, ...]
) -> None:
    """Features of chosen candidates: `{"unit", "rows": [[prompt, candidate], ...]}`."""
    chosen = json.loads(shard.fetch(plan).read_text())
    candidates = read_candidates(shard.fetch(Unit(**chosen["unit"])))
    prompts, places = np.array(chosen["rows"]).T
    with steady_threads():
        arrays = _described(extractor.load(shard), candidates.pictures[prompts, places], radii)
    captions = [candidates.prompts[prompt].text for prompt in prompts]
    _write(shard, "drawn", plan, arrays, {"captions": captions})


def describe_pairs(
    plan: Unit, shard: ShardWork, *, extractor: Extractor, radii: tuple[float, ...], side: int,
    image_tokenizer: Unit,
) -> None:  # fmt: skip
    """Features of some pictures of a shard, and of what their codes keep of them.

    The plan is `{"unit", "start", "count"}`. A ranker also gives `scores` [N] of pictures with
    their captions.
    """
    chosen = json.loads(shard.fetch(plan).read_text())
    start, end = chosen["start"], chosen["start"] + chosen["count"]
    samples = list(islice(read_shard(shard.fetch(Unit(**chosen["unit"]))), start, end))
    pictures = np.stack([pixels(sample, side) for sample in samples])
    captions = tuple(sample.caption for sample in samples)
    known = {"captions": list(captions), "keys": [sample.key for sample in samples]}
    with steady_threads():
        features = extractor.load(shard)
        arrays = _described(features, pictures, radii)
        if isinstance(features, RankerFeatures):
            texts = features.judge.captions(captions)
            arrays["scores"] = (arrays[feature_name(0)] * texts).sum(axis=1)
        rebuilt = reconstruct(shard.fetch(image_tokenizer), pictures, captions).pictures
        again = _described(features, rebuilt, radii)
    _write(shard, "reference", plan, arrays, known)
    _write(shard, "reconstructions", plan, again, known)


def read_features(paths: Sequence[Path], name: str) -> np.ndarray:
    """One array [N, …] of several files, in their order."""
    parts = []
    for path in paths:
        with safe_open(path, framework="np") as file:
            parts.append(file.get_tensor(name))
    return np.concatenate(parts)


def read_words(paths: Sequence[Path], name: str) -> list[str]:
    """The `captions` or `keys` of several files, in their order."""
    found: list[str] = []
    for path in paths:
        with safe_open(path, framework="np") as file:
            found += json.loads(file.metadata()[_METADATA])[name]
    return found


def _described(
    features: Features, pictures: np.ndarray, radii: Sequence[float]
) -> dict[str, np.ndarray]:
    return {
        feature_name(radius, what): values.astype(np.float32)
        for radius in radii
        for what, values in features.describe(blurred(pictures, radius)).items()
    }


def _write(
    shard: ShardWork, output: str, plan: Unit, arrays: Mapping[str, np.ndarray],
    known: Mapping[str, Any],
) -> None:  # fmt: skip
    path = shard.scratch / f"{output}-{Path(plan.name).stem}.safetensors"
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(contiguous, path, {_METADATA: json.dumps(known)})
    shard.add(output, path, path.name, len(next(iter(arrays.values()))))
