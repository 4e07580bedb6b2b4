"""What is recorded of a registered model: what it was made of, its files, who measured it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from infra.lineage import describe
from schemas.artifact import Sha256, Unit
from schemas.base import Frozen, digest
from schemas.manifest import InputRef

CHAIN = "tapir.chain"  # tag of a version: which manifests it was made from
MODEL = "tapir.model"  # tag of a version: which contents draw, whatever judged them
EVALUATOR = "tapir.evaluator"  # tag of a version: digest of who measured it
FILES = "tapir.files"  # tag of a version: digest over its files
_METRIC = "tapir.metric."

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]


class Evaluator(Frozen):
    """Who measured, pinned by digest."""

    name: str
    digest: str


class Gate(Frozen):
    """What a model must reach to become champion."""

    metric: str
    bound: float
    higher_is_better: bool = True

    def meets_bound(self, value: float) -> bool:
        """Whether a value is at the bound or on its good side."""
        return value >= self.bound if self.higher_is_better else value <= self.bound

    def beats(self, value: float, other: float) -> bool:
        """Whether a value is truly better than another."""
        return value > other if self.higher_is_better else value < other


class Registration(Frozen):
    """One version of a model, as it is kept in the store."""

    name: ModelName
    pipeline: str
    made_of: dict[str, InputRef]  # argument of the stage -> which output of which manifest
    drawn_by: tuple[str, ...]  # those arguments whose contents draw; the first one's run is named
    files: dict[str, Unit]  # path within the model's folder -> unit
    metrics: dict[str, float]
    evaluator: Evaluator
    created: float = Field(default_factory=time.time)

    @property
    def chain(self) -> Sha256:
        """Digest over the manifests it was made from: the same chain is the same version."""
        return chain_digest(self.made_of)

    @property
    def model(self) -> Sha256:
        """Digest over the contents that draw: equal models differ in their evaluation only."""
        return digest({name: self.made_of[name].digest for name in self.drawn_by})

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags, which lead to the manifests."""
        found = {
            CHAIN: self.chain, MODEL: self.model, "tapir.pipeline": self.pipeline,
            EVALUATOR: self.evaluator.digest, "tapir.evaluator_name": self.evaluator.name,
            FILES: files_digest(self.files),
        }  # fmt: skip
        for argument, ref in self.made_of.items():
            found[f"{describe.PROVENANCE}.{argument}"] = ref.provenance
            found[f"tapir.digest.{argument}"] = ref.digest
        found |= {_METRIC + describe.safe_key(k): repr(v) for k, v in self.metrics.items()}
        return found


def chain_digest(made_of: Mapping[str, InputRef]) -> Sha256:
    """Digest over the manifests that a version is made from."""
    return digest({argument: ref.provenance for argument, ref in made_of.items()})


def files_digest(files: Mapping[str, Unit]) -> Sha256:
    """Digest over the files of a model's folder."""
    return digest({path: unit.sha256 for path, unit in files.items()})


def measured(tags: Mapping[str, str], metric: str) -> float | None:
    """The value of a metric that a version's tags hold."""
    found = tags.get(_METRIC + describe.safe_key(metric))
    return None if found is None else float(found)
