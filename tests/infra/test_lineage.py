"""MLflow holds what the manifests say, is put right after a crash, and rebuilt when it is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from infra.lineage import IndexIncomplete, Lineage, Reindexed, describe
from infra.lineage.records import read_run
from schemas.manifest import Accepted, Manifest
from tests.infra.making import PIPELINE, Shapes, artifact, fresh_database, manifest, publish

ROOT = Path(__file__).parents[2]


class Index:
    """A lineage, and a client that reads what it wrote."""

    def __init__(self, shapes: Shapes, uri: str) -> None:
        self.shapes = shapes
        self.lineage = Lineage(uri, shapes.store)
        self.client = MlflowClient(uri)

    def runs(self, condition: str = "") -> list[Run]:
        found = self.client.get_experiment_by_name(PIPELINE)
        assert found is not None
        return list(self.client.search_runs([found.experiment_id], condition))

    def run_of(self, manifest: Manifest) -> Run:
        """The one run that stands for a manifest."""
        (run,) = self.runs(f"tags.`tapir.provenance` = '{manifest.provenance}'")
        return run

    def make(self, parent: str, manifest: Manifest, live: int = 0) -> Manifest:
        """What the runner does for a stage that is made; its manifest as it was published."""
        run = self.lineage.begin_stage(
            parent, manifest.stage, manifest.identity.task, manifest.fingerprint,
            manifest.identity.params, "prefect-task",
        )  # fmt: skip
        self.lineage.log_metrics(run, self.shapes.series[:live])
        ids = {"mlflow_run": run, "prefect_run": "prefect-task"}
        made = manifest.model_copy(update={"run": manifest.run.model_copy(update=ids)})
        publish(self.shapes.store, made)
        series = self.shapes.series if manifest.side else []
        self.lineage.finish_stage(run, made, series)
        return made


@pytest.fixture
def shapes(tmp_path: Path) -> Shapes:
    return Shapes(tmp_path / "shapes")


@pytest.fixture
def index(shapes: Shapes, tmp_path: Path) -> Index:
    return Index(shapes, fresh_database(tmp_path / "home"))


def _history(index: Index, run: Run, name: str) -> list[tuple[int, float]]:
    return sorted((p.step, p.value) for p in index.client.get_metric_history(run.info.run_id, name))


def _datasets(run: Run) -> dict[str, tuple[str, str, dict[str, str]]]:
    return {
        one.dataset.name: (one.dataset.digest, tags["mlflow.data.context"], tags)
        for one in run.inputs.dataset_inputs
        for tags in [{tag.key: tag.value for tag in one.tags}]
    }


def test_a_made_stage_stands_under_its_pipeline_run_with_all_that_its_manifest_says(
    index: Index, shapes: Shapes
) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {"name": PIPELINE}, "prefect-flow")
    made = index.make(parent, shapes.prior, live=2)
    index.lineage.end_pipeline(parent, "FINISHED")

    run = index.run_of(made)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert index.client.get_run(parent).data.tags["tapir.prefect_run"] == "prefect-flow"
    assert run.data.params["network.layers"] == "2"
    assert run.data.params["network.heads"] == "[1, 2]"
    assert len(run.data.params["text"]) == 6000
    assert "(9000 characters, sha256 " in run.data.params["text"]
    assert run.data.tags["tapir.fingerprint"] == made.fingerprint
    assert run.data.tags["tapir.code"] == made.identity.code_digest
    assert run.data.tags["tapir.prefect_run"] == "prefect-task"
    assert run.data.tags["tapir.input.images"] == shapes.images.provenance
    assert run.data.metrics["seconds"] == 2.5
    # Two of the values were logged while it ran; none of them stands there twice.
    assert _history(index, run, "loss") == [(e["step"], e["value"]) for e in shapes.series]


def test_inputs_and_outputs_are_datasets_that_link_runs_by_digest(
    index: Index, shapes: Shapes
) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    made = [index.make(parent, one) for one in (shapes.pairs, shapes.images)]
    index.lineage.end_pipeline(parent, "FINISHED")
    pairs, images = (_datasets(index.run_of(one)) for one in made)
    whole = shapes.pairs.outputs["kept"].digest
    assert pairs["pairs.kept"][:2] == (whole[:36], "output kept")
    assert images["pairs.kept"][:2] == (whole[:36], "input pairs")
    assert images["pairs.kept"][2]["tapir.digest"] == whole
    assert images["pairs.kept"][2]["tapir.provenance"] == shapes.pairs.provenance
    assert pairs["pairs.sources"][1] == "sources"
    assert set(images) == {"pairs.kept", "images.images", "images.drops"}


def test_a_cached_stage_names_the_run_that_made_it(index: Index, shapes: Shapes) -> None:
    first = index.lineage.begin_pipeline(PIPELINE, {})
    made = index.make(first, shapes.pairs)
    index.lineage.end_pipeline(first, "FINISHED")
    second = index.lineage.begin_pipeline(PIPELINE, {})
    index.lineage.cached_stage(second, "pairs", made)
    index.lineage.end_pipeline(second, "FINISHED")
    (cached,) = index.runs("tags.`tapir.cached` = 'true'")
    assert cached.data.tags["mlflow.parentRunId"] == second
    assert cached.data.tags["tapir.made_by"] == made.run.mlflow_run
    assert index.lineage.latest_run(PIPELINE) == second


def test_a_stage_that_another_attempt_made_meanwhile_links_to_it(
    index: Index, shapes: Shapes
) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    made = index.make(parent, shapes.pairs)
    waited = index.lineage.begin_stage(parent, "pairs", "make_pairs", made.fingerprint, {}, None)
    index.lineage.finish_stage(waited, made, [])
    index.lineage.end_pipeline(parent, "FINISHED")
    assert index.run_of(made).info.run_id == made.run.mlflow_run
    assert index.client.get_run(waited).data.tags["tapir.made_by"] == made.run.mlflow_run


def test_a_failed_stage_says_why(index: Index, shapes: Shapes) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    run = index.lineage.begin_stage(parent, "pairs", "make_pairs", "f" * 64, {}, None)
    index.lineage.fail_stage(run, "ValueError: " + "x" * 10_000)
    index.lineage.end_pipeline(parent, "FAILED")
    found = index.client.get_run(run)
    assert found.info.status == "FAILED"
    assert found.data.tags["tapir.error"].startswith("ValueError: xxx")
    assert index.client.get_run(parent).info.status == "FAILED"


def test_what_mlflow_refuses_is_said_at_the_end(index: Index, shapes: Shapes) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    run = index.lineage.begin_stage(parent, "pairs", "make_pairs", "f" * 64, {}, None)
    index.client.delete_run(run)
    index.lineage.fail_stage(run, "some error")
    with pytest.raises(IndexIncomplete, match="tapir reindex"):
        index.lineage.end_pipeline(parent, "FINISHED")


def test_files_are_kept_with_a_run(index: Index, tmp_path: Path) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {"name": "shapes"})
    (tmp_path / "report.html").write_text("<p>")
    index.lineage.log_files(parent, [tmp_path / "report.html"], "report")
    index.lineage.end_pipeline(parent, "FINISHED")
    kept = [item.path for item in index.client.list_artifacts(parent, "report")]
    assert kept == ["report/report.html"]
    folder = tmp_path / "home" / "mlflow-artifacts" / PIPELINE / parent
    assert (folder / "artifacts" / "declaration.json").is_file()


def test_sheets_of_an_evaluation_are_kept_with_its_run(index: Index, shapes: Shapes) -> None:
    units = shapes.unit("metrics.json", "{}"), shapes.unit("held-out.png", "a picture")
    made = manifest("evaluation", {"output": artifact("evaluation", *units)})
    publish(shapes.store, made)
    index.lineage.reindex()
    kept = index.client.list_artifacts(index.run_of(made).info.run_id, "sheets")
    assert [item.path for item in kept] == ["sheets/held-out.png"]


_DIES = """
import sys, time
from pathlib import Path
from infra.lineage import Lineage
from infra.store import Store
from infra.manifests import read_manifest
uri, url, provenance = sys.argv[1:]
store = Store(url)
lineage = Lineage(uri, store)
parent = lineage.begin_pipeline("shapes", {"name": "shapes"})
manifest = read_manifest(store, provenance)
run = lineage.begin_stage(parent, "pairs", "make_pairs", manifest.fingerprint, {"limit": 3}, None)
other = lineage.begin_stage(parent, "images", "make_images", "e" * 64, {}, None)
print(parent, run, other, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_is_put_right(index: Index, shapes: Shapes) -> None:
    """The parent and the unmade stage end as KILLED; the stage that had published is finished."""
    arguments = [index.lineage.tracking_uri, shapes.store.url, shapes.pairs.provenance]
    child = subprocess.Popen(
        [sys.executable, "-c", _DIES, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    parent, run, other = child.stdout.readline().split()

    living = index.lineage.begin_pipeline(PIPELINE, {})
    index.lineage.repair(PIPELINE)
    index.lineage.end_pipeline(living, "FINISHED")
    assert index.client.get_run(parent).info.status == "RUNNING"  # its process lives

    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    ids = shapes.pairs.run.model_copy(update={"mlflow_run": run})
    published = publish(shapes.store, shapes.pairs.model_copy(update={"run": ids}))
    index.lineage.repair(PIPELINE)
    after = index.lineage.begin_pipeline(PIPELINE, {})
    index.lineage.end_pipeline(after, "FINISHED")

    states = {one: index.client.get_run(one).info.status for one in (parent, run, other)}
    assert states == {parent: "KILLED", run: "FINISHED", other: "KILLED"}
    assert index.run_of(published).info.run_id == run
    record = read_run(shapes.store, parent)
    assert record is not None
    assert record.status == "KILLED"
    assert shapes.store.names("partial") == []


def _told(index: Index) -> list[tuple[Any, ...]]:
    """All that the index says, without ids and their order."""
    found = []
    originals = {
        run.info.run_id: run.data.tags.get("tapir.mlflow_run", run.info.run_id)
        for run in index.runs()
    }
    for run in index.runs():
        ids = ("tapir.mlflow_run", "mlflow.parentRunId", "tapir.made_by")
        tags = {k: originals.get(v, v) if k in ids else v for k, v in run.data.tags.items()}
        tags.setdefault("tapir.mlflow_run", run.info.run_id)
        series = {name: tuple(_history(index, run, name)) for name in run.data.metrics}
        found.append((
            run.info.run_name, run.info.status, sorted(tags.items()),
            sorted(run.data.params.items()), sorted(series.items()), sorted(_datasets(run)),
        ))  # fmt: skip
    return sorted(found)


def test_a_lost_database_is_rebuilt_from_the_store(
    index: Index, shapes: Shapes, tmp_path: Path
) -> None:
    first = index.lineage.begin_pipeline(PIPELINE, {"name": PIPELINE}, "prefect-flow")
    made = [index.make(first, one) for one in shapes.manifests[:2]]
    failed = index.lineage.begin_stage(first, "prior", "make_prior", "f" * 64, {"a": 1}, None)
    index.lineage.fail_stage(failed, "no memory left")
    index.lineage.end_pipeline(first, "FAILED")
    second = index.lineage.begin_pipeline(PIPELINE, {"name": PIPELINE})
    for one in made:
        index.lineage.cached_stage(second, one.stage, one)
    index.make(second, shapes.prior)
    index.lineage.end_pipeline(second, "FINISHED")
    for one in shapes.manifests:  # the hand-made ones, which no run has made
        shapes.store.delete(f"manifests/{one.provenance}.json")
    before = _told(index)

    rebuilt = Index(shapes, fresh_database(tmp_path / "other"))
    assert rebuilt.lineage.reindex() == Reindexed(3, 2, 0, ())
    after = _told(rebuilt)
    assert len(after) == len(before) == 8
    assert after == before
    rebuilt.lineage.reindex()
    assert _told(rebuilt) == after  # doing it again changes nothing


def test_reindex_does_not_believe_an_altered_manifest(index: Index, shapes: Shapes) -> None:
    path = Path(shapes.store.path(f"manifests/{shapes.pairs.provenance}.json"))
    path.write_text(path.read_text().replace('"limit": 3', '"limit": 4'))
    found = index.lineage.reindex()
    assert found.manifests == 2
    (refused,) = found.refused
    assert shapes.pairs.provenance in refused
    assert "altered" in refused


def test_an_adopted_manifest_has_a_run_of_its_own(index: Index, shapes: Shapes) -> None:
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    made = index.make(parent, shapes.pairs)
    accepted = Accepted(because="a new comment", instead_of=made.provenance)
    changes = {"accepted": accepted, "fingerprint": "a" * 64}
    adopted = publish(shapes.store, made.model_copy(update=changes))
    index.lineage.repair(PIPELINE)
    index.lineage.end_pipeline(parent, "FINISHED")
    assert index.run_of(made).info.run_id != index.run_of(adopted).info.run_id
    assert index.run_of(adopted).data.tags["tapir.accepted"] == "a new comment"


@pytest.mark.parametrize(
    ("key", "safe"),
    [
        ("counts/too small", "counts/too small"),
        ("a//b", "a/b"),
        ("../up", "up"),
        ("größe=1", "größe_1"),
        ("", "_"),
    ],
)
def test_names_are_made_such_that_mlflow_takes_them(key: str, safe: str) -> None:
    assert describe.safe_key(key) == safe


def test_long_names_stay_apart() -> None:
    one, other = (describe.safe_key("x" * 300 + end) for end in "ab")
    assert len(one) == len(other) == describe.KEY_LIMIT
    assert one != other


def test_log_metrics_never_waits_for_mlflow(index: Index, shapes: Shapes) -> None:
    """Ten thousand values in single calls, as a training stage gives them."""
    parent = index.lineage.begin_pipeline(PIPELINE, {})
    run = index.lineage.begin_stage(parent, "prior", "make_prior", "f" * 64, {}, None)
    started = time.perf_counter()
    for step in range(10_000):
        index.lineage.log_metrics(run, [{"name": f"m{step % 4}", "value": step, "step": step}])
    assert time.perf_counter() - started < 1.0
    index.lineage.fail_stage(run, "enough")
    index.lineage.end_pipeline(parent, "FINISHED")
    points = index.client.get_metric_history(run, "m1")
    assert len(points) == 2500
