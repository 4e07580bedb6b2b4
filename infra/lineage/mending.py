"""Putting the index right: after a crash, and after the database was lost."""

from __future__ import annotations

from dataclasses import dataclass

from infra.errors import LeaseHeld
from infra.lease import Lease
from infra.lineage import describe
from infra.lineage.records import KILLED, RUNNING, PipelineRun, StageRun, all_runs, read_run
from infra.lineage.registry import Registry
from infra.lineage.runs import ERROR, PARENT, Runs
from infra.manifests import examine_manifest, latest
from infra.store import Store
from schemas.manifest import Manifest


@dataclass(frozen=True)
class Reindexed:
    """What the index holds now, and the manifests that could not be believed."""

    manifests: int
    pipeline_runs: int
    model_versions: int
    refused: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.manifests} manifests, {self.pipeline_runs} pipeline runs and"
            f" {self.model_versions} model versions are indexed"
        )
        return "\n".join([text, *(f"not believed: {one}" for one in self.refused)])


def lease_name(run: str) -> str:
    """Name of the lease that a living pipeline run holds."""
    return f"run-{run}"


def link(runs: Runs, pipeline: str, parent: str, stage: StageRun, manifest: Manifest) -> str:
    """Make the run of a cached stage, which names the run that made what it found; its id."""
    tags = {describe.STAGE: stage.stage, **cached_tags(runs, manifest)}
    tags |= {describe.ORIGINAL: stage.run} if stage.run else {}
    run = runs.create(pipeline, stage.stage, tags, stage.started, parent)
    runs.end(run, "FINISHED", stage.started)
    return run


def cached_tags(runs: Runs, manifest: Manifest) -> dict[str, str]:
    """Tags of a run that found a manifest instead of making it."""
    return {
        describe.CACHED: "true",
        describe.FINGERPRINT: manifest.fingerprint,
        describe.SAME_AS: manifest.provenance,
        describe.MADE_BY: runs.index(manifest),
    }


def repair(runs: Runs, store: Store, pipeline: str) -> None:
    """End as KILLED the runs that dead processes left, and index what they published."""
    owners: dict[str, list[str]] = {}
    for run in runs.search(pipeline, "attributes.status = 'RUNNING'"):
        owner = run.data.tags.get(PARENT, run.info.run_id)
        owners.setdefault(owner, []).append(run.info.run_id)
    for owner, left in owners.items():
        if _is_abandoned(store, owner):
            for one in left:
                runs.end(one, KILLED)
            _record_end(store, owner)
    for name in store.names(f"pipelines/{pipeline}"):
        manifest = latest(store, pipeline, name.removesuffix(".json"))
        if manifest is not None:
            runs.index(manifest)


def _is_abandoned(store: Store, owner: str) -> bool:
    """Whether nobody holds the lease of a pipeline run any more."""
    try:
        lease = Lease.take(store, lease_name(owner))
    except LeaseHeld:
        return False
    lease.release()
    store.delete(lease.folder)
    return True


def _record_end(store: Store, owner: str) -> None:
    record = read_run(store, owner)
    if record is not None and record.status == RUNNING:
        record.model_copy(update={"status": KILLED}).save(store)


def reindex(runs: Runs, store: Store) -> Reindexed:
    """Bring every pipeline run, manifest and model version of the store into MLflow."""
    manifests, refused = _read_all(store)
    records = sorted(all_runs(store), key=lambda record: record.started)
    for record in records:
        _restore(runs, store, record, manifests)
    for manifest in manifests.values():  # those that no record names, such as adopted ones
        runs.index(manifest)
    versions = Registry(runs.tracking_uri, store).restore()
    return Reindexed(len(manifests), len(records), versions, refused)


def _read_all(store: Store) -> tuple[dict[str, Manifest], tuple[str, ...]]:
    manifests, refused = {}, []
    for name in store.names("manifests"):
        provenance = name.removesuffix(".json")
        manifest, problem = examine_manifest(store, provenance)
        if manifest is not None:
            manifests[provenance] = manifest
        else:
            refused.append(f"manifest {provenance}: {problem}")
    return manifests, tuple(refused)


def _restore(runs: Runs, store: Store, record: PipelineRun, manifests: dict[str, Manifest]) -> None:
    known = runs.by_original(record.pipeline)
    status = record.status
    if status == RUNNING:
        status = KILLED if _is_abandoned(store, record.run) else RUNNING
        if status == KILLED:
            _record_end(store, record.run)
    parent = known.get(record.run)
    if parent is None:
        parent = runs.begin(record)
    # A stage that died between publishing and its record is known by the run its manifest names.
    made = {m.run.mlflow_run: m for m in manifests.values() if m.accepted is None}
    for stage in record.stages:
        if stage.run not in known:
            found = manifests.get(stage.provenance or "") if stage.cached else made.get(stage.run)
            _restore_stage(runs, record.pipeline, parent, stage, found)
    if status != RUNNING:
        runs.end(parent, status, record.ended or record.started)


def _restore_stage(
    runs: Runs, pipeline: str, parent: str, stage: StageRun, manifest: Manifest | None
) -> None:
    if manifest is None:
        tags = {**stage.tags, describe.ORIGINAL: stage.run}
        tags |= {ERROR: stage.error} if stage.error else {}
        run = runs.create(pipeline, stage.stage, tags, stage.started, parent)
        runs.log_params(run, describe.params(stage.params))
        runs.end(run, KILLED if stage.status == RUNNING else stage.status, stage.started)
    elif stage.cached:
        link(runs, pipeline, parent, stage, manifest)
    else:
        runs.index(manifest, parent)
