"""A report of data stages alone says what became of a site's dirt, and how the site was asked."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from flows.declaration import BUNDLED, BoundPipeline, bind
from flows.reporting import write_report
from flows.stage_runner import RunIds, StageRunner, references
from flows.web import serving
from infra.demo_web.access_log import LOG_FILE, LogEntry, read_log
from infra.demo_web.kinds import Policy
from infra.demo_web.truth import read_truth
from infra.environment import Environment
from infra.store import Store
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration

PAGES = 40


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[BoundPipeline, Environment]:
    """The bundled `second`, on a small site."""
    values = yaml.safe_load((BUNDLED / "second.yaml").read_text())
    values["web"]["pages"] = PAGES
    bound = bind(parse_declaration(yaml.safe_dump(values, sort_keys=False), "second.yaml"))
    environment = Environment(home=tmp_path_factory.mktemp("home"), dask="inline")
    with serving(bound, environment, lambda said: None):
        run_stages(bound, environment)
    return bound, environment


def run_stages(bound: BoundPipeline, environment: Environment) -> None:
    runner = StageRunner(bound.name, Store(environment.store_url), environment)
    finished: dict[str, Manifest] = {}
    for stage in bound.stages.values():
        inputs = {
            argument: references(finished[link.stage])[link.output]
            for argument, link in stage.inputs.items()
        }
        identity, _ = runner.find(stage, inputs)
        finished[stage.name] = runner.make(stage, inputs, identity, RunIds(), lambda event: None)


def report(bound: BoundPipeline, environment: Environment) -> str:
    return write_report(bound, Store(environment.store_url), environment).read_text()


def site(environment: Environment) -> Path:
    return environment.home / "web" / "second"


def test_every_kind_of_dirt_is_accounted_for(
    second: tuple[BoundPipeline, Environment],
) -> None:
    page = report(*second)
    rows = re.findall(r"<tr><td>(\w+)</td><td>[^<]*</td><td>(\w+)</td><td>(\d+)</td>", page)
    truth = read_truth(site(second[1]))
    assert {kind for kind, *_ in rows} == {str(row.kind) for row in truth}
    single = {(str(row.kind), str(row.expected)) for row in truth if row.group is None}
    for kind, expected, total in rows:
        if (kind, expected) in single:
            assert int(total) == sum(row.kind == kind for row in truth)
    caught, dirt, lost, good = map(
        int,
        re.findall(r"Dirt caught: (\d+) of (\d+) .*Good pairs lost: (\d+) of (\d+)", page)[0],
    )
    assert caught >= 0.95 * dirt > 0
    assert lost <= 0.02 * good


def test_the_sites_own_log_is_read(second: tuple[BoundPipeline, Environment]) -> None:
    log = site(second[1]) / LOG_FILE
    count = len(read_log(log))
    assert f"has {count:,} requests; 0 of them should not have been made." in report(*second)

    before = log.read_bytes()
    wrong = LogEntry(0, "http", "GET", "a.test", "/x.png", 200, Policy.NEVER_REQUESTED)
    log.write_bytes(before + json.dumps(asdict(wrong)).encode() + b"\n")
    try:
        assert "1 of them should not have been made, such as: GET http://a.test/x.png" in report(
            *second
        )
    finally:
        log.write_bytes(before)
