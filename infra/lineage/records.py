"""Records of pipeline runs in the store, from which parent runs are rebuilt in MLflow.

runs/<run id>.json    one run of a pipeline: its declaration, its stages, how it ended
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from infra.store import Store
from schemas.base import Frozen

RUNNING = "RUNNING"  # MLflow's words for the state of a run
KILLED = "KILLED"


class StageRun(Frozen):
    """One stage of a pipeline run."""

    stage: str
    run: str  # id of its run in MLflow at that time
    started: float
    tags: dict[str, str] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    status: str = RUNNING
    provenance: str | None = None  # of the manifest it made or found
    cached: bool = False
    error: str | None = None


class PipelineRun(Frozen):
    """One run of a pipeline."""

    pipeline: str
    run: str  # id of the parent run in MLflow at that time
    declaration: dict[str, Any]
    prefect_run: str | None
    started: float
    ended: float | None = None
    status: str = RUNNING
    stages: tuple[StageRun, ...] = ()

    def with_stage(self, stage: StageRun) -> PipelineRun:
        """The same with a stage's run added, or replaced if it is there."""
        others = tuple(one for one in self.stages if one.run != stage.run)
        return self.model_copy(update={"stages": (*others, stage)})

    def save(self, store: Store) -> None:
        """Write the record."""
        store.write(f"runs/{self.run}.json", self.model_dump(mode="json"))


def read_run(store: Store, run: str) -> PipelineRun | None:
    """The record of a pipeline run."""
    found = store.read(f"runs/{run}.json")
    return PipelineRun.model_validate(found) if found is not None else None


def all_runs(store: Store) -> Iterator[PipelineRun]:
    """All records."""
    for name in store.names("runs"):
        record = read_run(store, name.removesuffix(".json"))
        if record is not None:
            yield record
