"""A store in which models have been trained, drawn with and judged, all by hand and in no time."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.declaration import BoundPipeline, load_pipeline
from infra.environment import Environment
from infra.lineage.registration import Evaluator, Gate, Registration
from infra.lineage.registry import Registry
from infra.manifests import latest
from infra.report.content import Content
from infra.store import Store
from schemas.artifact import (
    Candidates,
    CodeShards,
    Evaluation,
    ImageTokenizer,
    Prior,
    RankedCandidates,
    Ranker,
    TextTokenizer,
)
from schemas.manifest import Manifest
from tasks.candidates import CandidateSet, Prompt
from tests.infra.making import fresh_database, manifest, publish, ref, unit

PROMPTS = (Prompt("a cat", "seen"), Prompt("a dog", "seen"), Prompt("<i>a house</i>", "held_out"))
PARTS = {
    "prior": Prior, "image_tokenizer": ImageTokenizer, "text_tokenizer": TextTokenizer,
    "ranker": Ranker,
}  # fmt: skip
JUDGE = {"name": "checker:made", "digest": "c" * 64}


class Judged:
    """A home whose pipelines `train` models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = Environment(home=folder / "home")
        self.store = Store(self.environment.store_url)

    @functools.cached_property
    def uri(self) -> str:
        """The URI of the registry, made when it is first needed."""
        return fresh_database(self.folder / "home")

    def train(self, weights: str, right: Sequence[bool], **changes: Any) -> dict[str, Manifest]:
        """Publish all of a model: each prompt's best picture is right as said, the others not."""
        pipeline = changes.pop("pipeline", "shapes")
        made: dict[str, Manifest] = {}

        def add(stage: str, artifact: Any, *inputs: str, **more: Any) -> None:
            one = manifest(stage, {"output": artifact}, {i: made[i] for i in inputs}, **more)
            made[stage] = publish(self.store, one.model_copy(update={"pipeline": pipeline}))

        add("codes", CodeShards(units=(self._unit("codes", changes.get("codes", "codes")),)))
        network = {"network": changes.get("network", "dalle"), "training": {"steps": 1200}}
        for part, kind in PARTS.items():
            content = weights if part == "prior" else part
            inputs = ("codes",) if part == "prior" else ()
            add(part, kind(units=(self._unit(part, content),)), *inputs, params=network)
        sampling = {"candidates": 2, "sampling": changes.get("sampling", {})}
        drawn = self._drawn(changes.get("seed", 0), sum(weights.encode()) % 251)
        pictures = {"counts": {"pictures": 6}, "params": sampling}
        add("samples", Candidates(units=(drawn,)), "prior", **pictures)
        add("ranked", RankedCandidates(units=(drawn,)), "samples")
        judged = self._judged(right, changes.get("judge", JUDGE))
        add("evaluation", Evaluation(units=judged), "ranked")
        return made

    def register(self, made: Mapping[str, Manifest], value: float) -> str:
        """Register it; whether it is champion now, in words."""
        made_of = {name: ref(made[name]) for name in (*PARTS, "evaluation")}
        registration = Registration(
            name="shapes", pipeline="shapes", made_of=made_of, drawn_by=tuple(PARTS),
            files={"model.json": self._unit("model.json", "{}")}, metrics={"right": value},
            evaluator=Evaluator(**JUDGE),
        )  # fmt: skip
        registry = Registry(self.uri, self.store)
        registry.register(registration)
        return registry.promote(registration, Gate(metric="right", bound=0)).because

    def bound(self) -> BoundPipeline:
        """The declaration that is reported on."""
        return load_pipeline("shapes")

    def manifests(self) -> dict[str, Manifest]:
        """What the report's pipeline had last."""
        found = {name: latest(self.store, "shapes", name) for name in self.bound().stages}
        return {name: one for name, one in found.items() if one}

    def content(self) -> Content:
        """What its report says."""
        from flows.reporting import gather

        return gather(self.bound(), self.store, self.environment, self.folder / "fetched")

    def _drawn(self, seed: int, level: int) -> Any:
        count = len(PROMPTS)
        pictures = np.full((count, 2, 3, 4, 4), level, np.uint8)
        seeds = np.arange(count * 2).reshape(count, 2) + seed
        whole = CandidateSet(PROMPTS, seeds, np.zeros((count, 2, 3, 4), np.int32), pictures)
        path = self.folder / "drawn.safetensors"
        whole.ranked(np.tile([0.5, 0.25], (count, 1)), "r" * 64).write(path)
        return self.store.put(path, path.name)

    def _judged(self, right: Sequence[bool], judge: Any) -> tuple[Any, ...]:
        share = sum(right) / len(right)
        metrics = {
            "metrics": {"seen/right": share, "fid/ranker/blur_0": 2.5, "fid/ranker/blur_8": 1.0},
            "evaluator": judge, "ranker": "r" * 64,
        }  # fmt: skip
        table = [
            {"prompt": p.text, "group": p.group, "verdicts": [{"right": one}, {"right": False}]}
            for p, one in zip(PROMPTS, right, strict=True)
        ]
        return (
            self._unit("metrics.json", json.dumps(metrics)),
            self._unit("prompts.json", json.dumps(table)),
        )

    def _unit(self, name: str, content: str) -> Any:
        return unit(self.store, self.folder, name, content)
