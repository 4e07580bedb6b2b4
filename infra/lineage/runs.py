"""Runs in MLflow: made, completed from a manifest, found again; all of it idempotent.

Only the public client is used, in batches, and never MLflow's fluent functions, which look for git,
for notebooks and for the system's load on every call. A call takes about 10 ms on SQLite.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.lineage import describe
from infra.lineage.client import experiment, open_client
from infra.lineage.records import PipelineRun
from infra.manifests import read_metrics
from infra.store import Store
from schemas.manifest import Manifest

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
ERROR = "tapir.error"
ROLE = "tapir.role"
_PARAMS = 100  # MLflow's limits of one batch
_METRICS = 1000
_SHEETS = (".png", ".html")  # units of an evaluation that people look at
_TRACES = "trace.json.gz"  # side units of trainings

Entry = Mapping[str, Any]  # a value of a metric: name, value, step


class Runs:
    """The runs of all pipelines on one tracking server."""

    def __init__(self, tracking_uri: str, store: Store) -> None:
        self.tracking_uri = tracking_uri
        self._store = store
        self.client = open_client(tracking_uri)

    def create(
        self, pipeline: str, name: str, tags: Mapping[str, str], started: float,
        parent: str | None = None,
    ) -> str:  # fmt: skip
        """A new run that is RUNNING; its id."""
        experiment_id = experiment(self.client, self.tracking_uri, pipeline)
        found = dict(tags) | ({PARENT: parent} if parent else {})
        made = self.client.create_run(experiment_id, int(started * 1000), found, name)
        return str(made.info.run_id)

    def begin(self, record: PipelineRun) -> str:
        """The parent run of a pipeline run; its id."""
        tags = {ROLE: "pipeline"}
        tags |= {describe.ORIGINAL: record.run} if record.run else {}
        tags |= {"tapir.prefect_run": record.prefect_run} if record.prefect_run else {}
        run = self.create(record.pipeline, record.pipeline, tags, record.started)
        self.client.log_dict(run, record.declaration, "declaration.json")
        return run

    def end(self, run: str, status: str, ended: float | None = None) -> None:
        """Say how a run ended."""
        self.client.set_terminated(run, status, int((ended or time.time()) * 1000))

    def search(self, pipeline: str, condition: str) -> list[Run]:
        """Runs of a pipeline for which a condition in MLflow's words holds, the newest first."""
        found = self.client.get_experiment_by_name(pipeline)
        if found is None:
            return []
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [found.experiment_id],
                condition,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def by_original(self, pipeline: str) -> dict[str, str]:
        """Ids of a pipeline's runs by the ids that they had when they ran."""
        found = {}
        for run in self.search(pipeline, ""):
            found[run.info.run_id] = run.info.run_id
            found[run.data.tags.get(describe.ORIGINAL, run.info.run_id)] = run.info.run_id
        return found

    def made(self, manifest: Manifest) -> str | None:
        """Id of the finished run that stands for a manifest."""
        condition = f"tags.`{describe.PROVENANCE}` = '{manifest.provenance}'"
        found = self.search(manifest.pipeline, condition + " and attributes.status = 'FINISHED'")
        return str(found[0].info.run_id) if found else None

    def latest_parent(self, pipeline: str) -> str | None:
        """Id of the newest run of a pipeline, finished or not."""
        runs = self.search(pipeline, f"tags.`{ROLE}` = 'pipeline'")
        return str(runs[0].info.run_id) if runs else None

    def index(self, manifest: Manifest, parent: str | None = None) -> str:
        """The finished run of a manifest: found, or completed where it was left, or made."""
        found = self.made(manifest)
        if found is not None:
            return found
        run = self._left_unfinished(manifest)
        if run is None:
            run = self.create(
                manifest.pipeline, manifest.stage, describe.tags(manifest),
                manifest.run.started, parent,
            )  # fmt: skip
        self.complete(run, manifest, read_metrics(self._store, manifest))
        return run

    def complete(self, run: str, manifest: Manifest, metrics: Iterable[Entry]) -> None:
        """Bring a run to what a manifest says, and finish it."""
        present = self.client.get_run(run)
        self.log_params(run, describe.params(manifest.params), present.data.params)
        self.set_tags(run, describe.tags(manifest))
        totals = [
            {"name": name, "value": value, "step": 0}
            for name, value in describe.totals(manifest).items()
        ]
        entries = self._missing(run, [*metrics, *totals], present.data.metrics)
        self.log_metrics(run, entries, manifest.run.ended)
        self._log_datasets(run, manifest)
        self._log_files(run, manifest)
        self.end(run, "FINISHED", manifest.run.ended)

    def log_params(
        self, run: str, params: Mapping[str, str], present: Mapping[str, str] | None = None
    ) -> None:
        """Log the parameters that the run does not have yet; MLflow refuses to change any."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in params.items() if key not in (present or {})]
        for part in _parts(new, _PARAMS):
            self.client.log_batch(run, params=part, synchronous=True)

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        for part in _parts([RunTag(key, value) for key, value in tags.items()], _PARAMS):
            self.client.log_batch(run, tags=part, synchronous=True)

    def log_metrics(self, run: str, entries: Iterable[Entry], when: float | None = None) -> None:
        """Log values of metrics, all at one time (by default, now)."""
        from mlflow.entities import Metric

        stamp = int((when or time.time()) * 1000)
        metrics = [
            Metric(describe.safe_key(one["name"]), float(one["value"]), stamp, int(one["step"]))
            for one in entries
        ]
        for part in _parts(metrics, _METRICS):
            self.client.log_batch(run, metrics=part, synchronous=True)

    def _left_unfinished(self, manifest: Manifest) -> str | None:
        """The run under which the manifest was made, when it died before it was finished."""
        from mlflow.exceptions import MlflowException

        if manifest.run.mlflow_run is None:
            return None
        try:
            run = self.client.get_run(manifest.run.mlflow_run)
        except MlflowException:
            return None  # the database is another one now
        # An adopted manifest names the run of the one whose outputs it adopted.
        own = run.data.tags.get(describe.FINGERPRINT) == manifest.fingerprint
        return str(run.info.run_id) if own else None

    def _missing(
        self, run: str, entries: Iterable[Entry], present: Mapping[str, float]
    ) -> list[Entry]:
        """The entries that were not logged while the stage ran (the last of each step counts)."""
        last = {(describe.safe_key(one["name"]), int(one["step"])): one for one in entries}
        known = {
            (name, point.step)
            for name in {name for name, _ in last} & set(present)
            for point in self.client.get_metric_history(run, name)
        }
        return [entry for key, entry in last.items() if key not in known]

    def _log_datasets(self, run: str, manifest: Manifest) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        described = describe.datasets(manifest, self._store.url)
        found = [
            DatasetInput(
                Dataset(one["name"], one["digest"], "tapir", one["source"], None, one["profile"]),
                [InputTag(key, value) for key, value in one["tags"].items()],
            )
            for one in described
        ]
        self.client.log_inputs(run, found)

    def _log_files(self, run: str, manifest: Manifest) -> None:
        """What people look at: sheets of an evaluation, the trace of a training."""
        units = [
            (unit, "sheets")
            for output in manifest.outputs.values()
            if output.kind == "evaluation"
            for unit in output.units
            if unit.name.endswith(_SHEETS)
        ]
        units += [(unit, "traces") for unit in manifest.side if unit.name.endswith(_TRACES)]
        with tempfile.TemporaryDirectory() as folder:
            for unit, place in units:
                fetched = self._store.fetch(unit, Path(folder) / "fetched")
                named = fetched.rename(Path(folder) / unit.name)
                self.client.log_artifact(run, str(named), place)


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
