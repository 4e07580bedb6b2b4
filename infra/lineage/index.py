"""The index of a store's manifests in MLflow, written while pipelines run, and put right after.

A run that is RUNNING belongs to a process that lives: each pipeline run holds a lease in the store
(`infra.lease`), and `repair` ends what a dead one left. Stages that were made are found by the tag
`tapir.provenance`; a cached stage has a run of its own that names the one which made it.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.lease import Lease
from infra.lineage import describe
from infra.lineage.client import Writer
from infra.lineage.mending import Reindexed, cached_tags, lease_name, link, reindex, repair
from infra.lineage.records import PipelineRun, StageRun
from infra.lineage.runs import ERROR, Entry, Runs
from infra.store import Store
from schemas.manifest import Manifest

_PAUSE = 2.0  # seconds between two batches of metrics; each takes about 20 ms of this process


@dataclass
class _Open:
    """A pipeline run of this process."""

    record: PipelineRun
    lease: Lease


@dataclass
class _Buffer:
    """Values of metrics that wait for the next batch."""

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    sent: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Lineage:
    """The index on one tracking server of one store's manifests.

    Calls return at once and are done in order by a thread of their own, except those that give a
    run id. What goes wrong in it is raised by `end_pipeline`.
    """

    def __init__(self, tracking_uri: str, store: Store) -> None:
        self.tracking_uri = tracking_uri
        self.store = store
        self._writer = Writer(tracking_uri)
        self._buffer = _Buffer()
        self._open: dict[str, _Open] = {}
        self._parents: dict[str, str] = {}  # stage run -> pipeline run

    # A run of a pipeline

    def begin_pipeline(
        self, pipeline: str, declaration: Mapping[str, Any], prefect_run: str | None = None
    ) -> str:
        """Open the parent run of a pipeline run; its id."""
        return self._writer.call(self._begin_pipeline, pipeline, dict(declaration), prefect_run)

    def end_pipeline(self, run: str, status: str) -> None:
        """End a parent run as FINISHED, FAILED or KILLED, and wait until all is written.

        Raises:
            IndexIncomplete: if MLflow refused something since the pipeline began.
        """
        self._flush()
        self._writer.later(self._end_pipeline, run, status)
        self._writer.settle()

    def begin_stage(
        self, parent: str, stage: str, task: str, fingerprint: str, params: Mapping[str, Any],
        prefect_run: str | None = None,
    ) -> str:  # fmt: skip
        """Open the run of a stage that is to be made; its id."""
        tags = {
            describe.STAGE: stage, "tapir.task": task, describe.FINGERPRINT: fingerprint,
            **({"tapir.prefect_run": prefect_run} if prefect_run else {}),
        }  # fmt: skip
        return self._writer.call(self._begin_stage, parent, stage, tags, dict(params))

    def log_metrics(self, run: str, entries: Sequence[Entry]) -> None:
        """Take values `{name, value, step}` to be logged with the next batch."""
        buffer, now = self._buffer, time.monotonic()
        with buffer.lock:
            buffer.entries.setdefault(run, []).extend(entries)
            due = now - buffer.sent >= _PAUSE
            buffer.sent = now if due else buffer.sent
        if due:
            self._flush()

    def finish_stage(self, run: str, manifest: Manifest, metrics: Sequence[Entry]) -> None:
        """Complete the run that made a manifest; `metrics` are all values over time."""
        self._flush()
        self._writer.later(self._finish_stage, run, manifest, list(metrics))

    def fail_stage(self, run: str, error: str) -> None:
        """End the run of a stage that failed."""
        self._flush()
        self._writer.later(self._fail_stage, run, error)

    def finish_effect(self, run: str) -> None:
        """End the run of an effect, which has no manifest."""
        self._flush()
        self._writer.later(self._finish_effect, run)

    def cached_stage(self, parent: str, stage: str, manifest: Manifest) -> None:
        """Note that a stage was found made, with a link to the run that made it."""
        self._writer.later(self._cached_stage, parent, stage, manifest)

    # Afterwards

    def repair(self, pipeline: str) -> None:
        """End the runs that dead processes left, and index what they had published."""
        self._writer.later(lambda: repair(self._runs, self.store, pipeline))

    def reindex(self) -> Reindexed:
        """Rebuild everything from the store; what is there already stays as it is."""
        return self._writer.call(lambda: reindex(self._runs, self.store))

    def latest_run(self, pipeline: str) -> str | None:
        """Id of the newest run of a pipeline."""
        return self._writer.call(lambda: self._runs.latest_parent(pipeline))

    def log_files(self, run: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files (sheets, a report) with a run."""

        def log() -> None:
            for path in paths:
                self._runs.client.log_artifact(run, str(path), folder)

        self._writer.call(log)

    # In the writer's thread

    @functools.cached_property
    def _runs(self) -> Runs:
        return Runs(self.tracking_uri, self.store)

    def _begin_pipeline(
        self, pipeline: str, declaration: dict[str, Any], prefect_run: str | None
    ) -> str:
        record = PipelineRun(
            pipeline=pipeline, run="", declaration=declaration, prefect_run=prefect_run,
            started=time.time(),
        )  # fmt: skip
        run = self._runs.begin(record)
        record = record.model_copy(update={"run": run})
        record.save(self.store)
        self._open[run] = _Open(record, Lease.take(self.store, lease_name(run)))
        return run

    def _end_pipeline(self, run: str, status: str) -> None:
        opened = self._open.pop(run)
        ended = time.time()
        opened.record.model_copy(update={"ended": ended, "status": status}).save(self.store)
        opened.lease.release()
        self.store.delete(opened.lease.folder)
        self._runs.end(run, status, ended)

    def _begin_stage(
        self, parent: str, stage: str, tags: dict[str, str], params: dict[str, Any]
    ) -> str:
        started = time.time()
        run = self._runs.create(self._pipeline(parent), stage, tags, started, parent)
        self._runs.log_params(run, describe.params(params))
        self._note(
            parent, StageRun(stage=stage, run=run, started=started, tags=tags, params=params)
        )
        return run

    def _finish_stage(self, run: str, manifest: Manifest, metrics: list[Entry]) -> None:
        by_other = manifest.run.mlflow_run != run  # another attempt was waited for and made it
        self._renote(run, status="FINISHED", provenance=manifest.provenance, cached=by_other)
        if by_other:
            self._runs.set_tags(run, cached_tags(self._runs, manifest))
            self._runs.end(run, "FINISHED")
        else:
            self._runs.complete(run, manifest, metrics)

    def _fail_stage(self, run: str, error: str) -> None:
        text = describe.cut(error, describe.TAG_LIMIT)
        self._renote(run, status="FAILED", error=text)
        self._runs.set_tags(run, {ERROR: text})
        self._runs.end(run, "FAILED")

    def _finish_effect(self, run: str) -> None:
        self._renote(run, status="FINISHED")
        self._runs.end(run, "FINISHED")

    def _cached_stage(self, parent: str, stage: str, manifest: Manifest) -> None:
        noted = StageRun(
            stage=stage, run="", started=time.time(), status="FINISHED",
            provenance=manifest.provenance, cached=True,
        )  # fmt: skip
        run = link(self._runs, self._pipeline(parent), parent, noted, manifest)
        # Its record is written with the next one; a run with all stages cached writes it once.
        self._note(parent, noted.model_copy(update={"run": run}), save=False)

    def _log_metrics(self, run: str, entries: list[Entry]) -> None:
        self._runs.log_metrics(run, entries)

    def _pipeline(self, parent: str) -> str:
        return self._open[parent].record.pipeline

    def _note(self, parent: str, stage: StageRun, save: bool = True) -> None:
        """Keep the record of a pipeline run in step."""
        opened = self._open[parent]
        opened.record = opened.record.with_stage(stage)
        self._parents[stage.run] = parent
        if save:
            opened.record.save(self.store)

    def _renote(self, run: str, **changes: Any) -> None:
        parent = self._parents[run]
        stages = self._open[parent].record.stages
        before = next(stage for stage in stages if stage.run == run)
        self._note(parent, before.model_copy(update=changes))

    def _flush(self) -> None:
        with self._buffer.lock:
            waiting, self._buffer.entries = self._buffer.entries, {}
        for run, entries in waiting.items():
            self._writer.later(self._log_metrics, run, entries)
