"""What an evaluation is given, small and real: pictures, networks, drawings, and its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.shards import Sample, read_shard
from infra.sources import resolve_sources
from infra.work import Work
from model_zoo.weights import build_recipe, save_network
from schemas.artifact import (
    Evaluation,
    EvaluationPairs,
    ImageShards,
    RankedCandidates,
    Ranker,
    Unit,
)
from tasks.candidates import CandidateSet, Prompt, read_candidates
from tasks.devices import steady_threads
from tasks.evaluate import EvaluateParams, evaluate
from tasks.evaluation.features import blurred
from tasks.judging import Judge
from tasks.prepared import first_pictures
from tests.tasks.image_shards import add_samples
from tests.tasks.tiny_models import (
    TEXT_LENGTH,
    add_image_tokenizer,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

FEATURES = 8


def add_ranker(work: Work, seed: int = 2) -> Ranker:
    """A ranker of few features: a Fréchet distance needs more pictures than features."""
    config = {
        "text_vocabulary": vocabulary_of(work, add_text_tokenizer(work)), "features": FEATURES,
        "text_length": TEXT_LENGTH, "resolution": 32,
    }  # fmt: skip
    torch.manual_seed(seed)
    path = work.scratch / f"ranker-{seed}.safetensors"
    save_network(path, build_recipe("clip", config).network, "clip", config)
    return Ranker(units=(work.add(path, path.name),))


def _pairs(work: Work, images: ImageShards, shared: int, own: int) -> EvaluationPairs:
    """`shared` pairs that are trained on, and `own` that are not."""
    others = add_shards(work, shards=3, pictures=own).units[2]  # the first two are trained on
    trained = samples_of(images.units, work)[:shared]
    return add_pairs([*trained, *samples_of([others], work)], work)


def samples_of(units: Sequence[Unit], work: Work) -> list[Sample]:
    """All samples of shards, in their order."""
    return [sample for unit in units for sample in read_shard(work.fetch(unit))]


def add_pairs(samples: Iterable[Sample], work: Work, shards: int = 1) -> EvaluationPairs:
    """A set to evaluate on, split over shards."""
    return EvaluationPairs(units=add_samples(work, samples, shards).units)


def _ranked(work: Work, images: ImageShards, ranker: str, captions: list[str]) -> RankedCandidates:
    """Four candidates for each caption: pictures of the training set, blurred."""
    pictures, _ = first_pictures([work.fetch(unit) for unit in images.units], 32, 24)
    units = []
    for number in range(2):
        texts = captions[number::2]
        chosen = np.random.default_rng(number).integers(0, 24, (len(texts), 4))
        drawn = blurred(pictures, 1 + number)[chosen]
        scores = np.random.default_rng(number).uniform(size=(len(texts), 4))
        made = CandidateSet(
            tuple(Prompt(text, "captions") for text in texts),
            np.zeros((len(texts), 4), np.int64), np.zeros((len(texts), 4, 8, 8), np.int32), drawn,
        ).ranked(scores, ranker)  # fmt: skip
        path = work.scratch / f"ranked-{number}.safetensors"
        made.write(path)
        units.append(work.add(path, path.name))
    return RankedCandidates(units=tuple(units))


class World:
    """A training set of 24, a set to evaluate on of 12 of which 5 are trained on, and drawings."""

    def __init__(self, folder: Path, sources: tuple[str, ...] = ()) -> None:
        self.work = Work.local(folder)
        if sources:
            resolved = resolve_sources(sources, self.work.environment)
            self.work = Work.local(folder, sources=resolved)
        self.images = add_shards(self.work)
        self.pairs = _pairs(self.work, self.images, 5, 15)
        self.samples = samples_of(self.pairs.units, self.work)
        self.ranker = add_ranker(self.work)
        captions = list(dict.fromkeys(sample.caption for sample in self.samples))
        self.ranked = _ranked(self.work, self.images, self.ranker.digest, captions)
        self.text_tokenizer = add_text_tokenizer(self.work)

    def evaluate(self, **given: Any) -> tuple[dict[str, Any], Evaluation]:
        """What `metrics.json` says."""
        params = {"originals": 16, "comparison": given.pop("comparison", {})}
        inputs = {"ranker": self.ranker, "text_tokenizer": self.text_tokenizer, **given}
        found = evaluate(
            ranked=self.ranked, images=self.images, work=self.work,
            image_tokenizer=add_image_tokenizer(self.work),
            params=EvaluateParams.model_validate(params), **inputs,
        )  # fmt: skip
        return json.loads(self.file(found, "metrics.json").read_text()), found

    def file(self, found: Evaluation, name: str) -> Path:
        return self.work.fetch(next(unit for unit in found.units if unit.name == name))

    def overlaps(self, found: Evaluation) -> list[dict[str, Any]]:
        """The lines of `overlap.jsonl`."""
        return [json.loads(s) for s in self.file(found, "overlap.jsonl").read_text().splitlines()]

    def features(self, pictures: np.ndarray) -> np.ndarray:
        tokenizer = self.work.fetch(self.text_tokenizer.units[0])
        with steady_threads():
            return Judge(self.work.fetch(self.ranker.units[0]), tokenizer).images(pictures)

    def trained(self) -> list[Sample]:
        """The training pictures, shard by shard."""
        return samples_of(self.images.units, self.work)

    def drawn(self) -> np.ndarray:
        sets = [read_candidates(self.work.fetch(unit)) for unit in self.ranked.units]
        return np.concatenate([one.pictures.reshape(-1, 3, 32, 32) for one in sets])
