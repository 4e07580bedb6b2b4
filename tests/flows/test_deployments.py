"""What prefect.yaml deploys can be loaded and called, and runs where a worker serves it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.declaration import load_pipeline
from tests.flows.command import ROOT
from tests.flows.prefect_client import Prefect, asked
from tests.tasks.sources.warc_files import simple

# warcio leaves its temporary files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

DEPLOYED = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = DEPLOYED["deployments"]
IDS = [one["entrypoint"] for one in DEPLOYMENTS]

DECLARATION = """\
name: few
stages:
  pairs:
    task: collect_pairs
    params: {files: ["FOLDER/*.warc.gz"]}
  captions:
    task: filter_captions
    inputs: {pairs: pairs}
    params: {filters: [{caption_length: {min_words: 2, max_words: 60}}]}
"""


def load(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    """The flow, as a worker finds it: by its path below the checkout."""
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(deployment["entrypoint"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)
def test_its_flow_takes_its_parameters(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = load(deployment, monkeypatch)
    given = deployment["parameters"]
    assert deployment["entrypoint"] == f"flows/{flow.name}.py:{flow.name}"
    assert flow.validate_parameters(given).items() >= given.items()
    needed = [p for p in inspect.signature(flow.fn).parameters.values() if p.default is p.empty]
    assert {parameter.name for parameter in needed} <= given.keys()
    if "pipeline" in given:
        assert load_pipeline(given["pipeline"]).name == given["pipeline"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)
def test_its_schedules_are_ones(deployment: dict[str, Any]) -> None:
    for schedule in deployment.get("schedules", ()):
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert cron.cron == schedule["cron"]
        assert isinstance(schedule["active"], bool)


def test_every_named_flow_is_deployed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{load(one, monkeypatch).name}/{one['name']}" for one in DEPLOYMENTS]
    assert sorted(name.partition("/")[0] for name in names) == [
        "audit", "collect", "retrain", "sample",
    ]  # fmt: skip


def test_a_deployed_flow_runs_to_its_end_on_a_worker(server: str, tmp_path: Path) -> None:
    prefect = Prefect(server, tmp_path)
    (tmp_path / "pages.warc.gz").write_bytes(simple(3).bytes())
    (tmp_path / "few.yaml").write_text(DECLARATION.replace("FOLDER", str(tmp_path)))
    prefect("work-pool", "create", "tapir", "--type", "process")
    prefect("deploy", "--all")
    listed = {one["name"]: one for one in asked(server, "deployments/filter")}
    assert {one["name"] for one in DEPLOYMENTS} == listed.keys()
    (schedule,) = listed["monthly"]["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 3 28 * *", False)

    parameters = {"pipeline": str(tmp_path / "few.yaml"), "home": str(tmp_path / "home")}
    prefect("deployment", "run", "collect/monthly", "--params", json.dumps(parameters))
    prefect("worker", "start", "--pool", "tapir", "--run-once")
    runs = asked(server, "flow_runs/filter")
    (run,) = [one for one in runs if one["deployment_id"] == listed["monthly"]["id"]]
    assert run["state_type"] == "COMPLETED"
    pipelines = tmp_path / "home" / "store" / "pipelines" / "few"
    assert {path.stem for path in pipelines.iterdir()} == {"pairs", "captions"}
