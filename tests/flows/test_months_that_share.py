"""Crawls of two months that hold the same images: of the first month nothing is asked for again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from flows.declaration import load_pipeline
from flows.stage_runner import RunIds, StageRunner, references
from infra.environment import Environment
from infra.store import Store
from infra.tables import read_table
from schemas.manifest import InputRef, Manifest
from schemas.records import PAIR_SCHEMA
from tests.tasks.test_download_images import AGENT, encoded, page
from tests.tasks.web import requests, serving

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

DECLARATION = f"""\
name: monthly
first_month: 2026-11
stages:
  pairs:
    task: collect_pairs
    params:
      files: [{{table: "FOLDER/{{month}}/*.jsonl", url: url, caption: caption, page: page}}]
  once:
    task: dedup_urls
    inputs: {{pairs: pairs}}
    params: {{stays: first}}
  images:
    task: download_images
    inputs: {{pairs: once.kept}}
    params:
      user_agent: "{AGENT}"
      private_hosts: FOLDER/web/hosts.json
      chunk: 12
      host_rate: 0
      host_connections: 32
      threads: 16
      processes: 1
"""
FIRST, SECOND = "2026-11", "2026-12"
Row = tuple[int, str, str]  # number of the image, caption, page


def test_a_month_that_shares_images_with_the_last_asks_for_new_ones_only(tmp_path: Path) -> None:
    early, late = range(60), range(60, 90)
    crawls: dict[str, dict[str, list[Row]]] = {
        FIRST: {
            # The second file has images of the first, too, and more to say about them.
            "a": [(n, f"picture {n}", "one") for n in early[:35]],
            "b": [(n, f"picture number {n}", "two") for n in early[25:]],
        },
        SECOND: {
            "c": [
                *((n, f"what is to be seen in picture {n}", "three") for n in early[::6]),  # longer
                *((n, "short", "three") for n in early[1::6]),
                *((n, f"picture {n}", "one") for n in early[2:35:6]),  # the very same pairs
                *((n, f"picture {n}", "three") for n in late),
            ],
        },
    }
    file = tmp_path / "monthly.yaml"
    file.write_text(DECLARATION.replace("FOLDER", str(tmp_path)))
    site = {f"a.test/{n}.png": page(encoded(n)) for n in (*early, *late)}
    with serving(tmp_path / "web", site):
        publish(tmp_path / FIRST, crawls[FIRST])
        before, asked_before = run(file, FIRST, tmp_path)
        publish(tmp_path / SECOND, crawls[SECOND])
        after, asked_after = run(file, SECOND, tmp_path)
        scratch, asked_scratch = run(file, SECOND, tmp_path, home="scratch")

    robots = {"a.test/robots.txt": 1}
    assert asked_before == Counter({f"a.test/{n}.png": 1 for n in early} | robots)
    assert asked_after == Counter({f"a.test/{n}.png": 1 for n in late} | robots)
    assert asked_scratch == asked_before | asked_after

    old, new = (made["images"].outputs["images"].units for made in (before, after))
    assert len(old) >= 5
    assert new[: len(old)] == old
    assert len(new) > len(old)
    # To the chunks come the parts of the table, which are split: two, and the second month's.
    assert counters(before["images"]) == (2 + len(old), 0)
    assert counters(after["images"]) == (1 + len(new) - len(old), 2 + len(old))

    for stage, manifest in after.items():
        assert manifest.outputs == scratch[stage].outputs, stage
    first_rows = {n: (n, caption, where) for n, caption, where in crawls[FIRST]["b"]}
    first_rows |= {n: (n, caption, where) for n, caption, where in crawls[FIRST]["a"]}
    wanted = [*first_rows.values(), *crawls[SECOND]["c"][-len(late) :]]
    assert kept(after["once"], tmp_path) == sorted(wanted)


def publish(folder: Path, files: dict[str, list[Row]]) -> None:
    folder.mkdir()
    for name, rows in files.items():
        lines = [
            {"url": f"http://a.test/{n}.png", "caption": caption, "page": f"http://a.test/{where}"}
            for n, caption, where in rows
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(
    file: Path, month: str, folder: Path, home: str = "home"
) -> tuple[dict[str, Manifest], Counter[str]]:
    """The manifest of each stage, and what the site was asked for meanwhile."""
    asked = requests(folder / "web")
    environment = Environment(home=folder / home, dask="inline")
    runner = StageRunner("monthly", Store(environment.store_url), environment)
    made: dict[str, Manifest] = {}
    for name, stage in load_pipeline(str(file), month=month).stages.items():
        inputs: dict[str, InputRef] = {
            argument: references(made[link.stage])[link.output]
            for argument, link in stage.inputs.items()
        }
        identity, _ = runner.find(stage, inputs)
        made[name] = runner.make(stage, inputs, identity, RunIds(), lambda event: None)
    return made, requests(folder / "web") - asked


def counters(manifest: Manifest) -> tuple[int, int]:
    return manifest.run.units_made, manifest.run.units_reused


def kept(manifest: Manifest, folder: Path) -> list[Row]:
    store = Store(Environment(home=folder / "home").store_url)
    parts = [store.fetch(unit, folder / "fetched") for unit in manifest.outputs["kept"].units]
    rows = [row for part in parts for row in read_table(part, PAIR_SCHEMA)]
    return sorted(
        (int(row["image_url"][14:-4]), row["caption"], row["page_url"].rpartition("/")[2])
        for row in rows
    )
