"""The whole of `shapes`, tiny: from pages over real servers and trainings to a model that draws."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from infra.demo_web.access_log import read_log, violations
from infra.demo_web.kinds import Policy
from infra.demo_web.truth import read_truth
from tests.flows.command import ROOT, Tapir
from tests.flows.shapes import Shapes, tiny

pytestmark = pytest.mark.slow  # all of it waits for a whole run

STAGES = list(tiny()["stages"])
CHAMPION = "models:/shapes@champion"


@pytest.fixture
def copied(shapes: Shapes, tmp_path: Path) -> Tapir:
    """The same pipeline with a copy of the home, to be changed."""
    shutil.copytree(shapes.tapir.home, tmp_path / "home")
    return Tapir(tmp_path, shapes.tapir.file.read_text())


def test_every_stage_is_made_and_then_cached(shapes: Shapes) -> None:
    assert sorted(re.findall(r"(\w+): done", shapes.said)) == sorted(STAGES)
    start = time.monotonic()
    said = shapes.tapir("run", str(shapes.tapir.file))
    seconds = time.monotonic() - start
    assert set(re.findall(r"(\w+): cached", said)) == {*STAGES} - {"model"}
    assert "it is the champion already" in said
    assert seconds < shapes.seconds / 2  # most of what is left are the starts of servers


class _Links(HTMLParser):
    """What a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loading = ("src", "href", "srcset", "data", "poster", "action")
        self.found += [value or "" for name, value in attrs if name in loading]


def test_the_report_shows_all_and_needs_no_other_file(shapes: Shapes) -> None:
    page = (shapes.tapir.home / "reports" / "shapes" / "index.html").read_text()
    links = _Links()
    links.feed(page)
    assert len(links.found) > 20
    own = ("data:image/png;base64,", "data:image/jpeg;base64,", "#")
    assert all(link.startswith(own) for link in links.found)
    assert not re.search(r"url\((?!['\"]?data:)|@import", page)
    headings = re.findall(r"<h\d[^>]*>(.*?)</h\d>", page)
    assert {"From pages to training pairs", "Training", "Stages", "Lineage"} <= set(headings)
    shown = ("reconstructions", "candidates held out one", "candidates held out two", "best of n")
    assert set(shown) <= set(headings)
    assert {f"Dropped by {stage}" for stage in ("pairs", "captions", "clean")} <= set(headings)
    assert re.search(r"Dirt caught: \d+ of \d+", page)


def test_what_robots_txt_forbids_is_never_requested(shapes: Shapes) -> None:
    site = shapes.tapir.home / "web" / "shapes"
    log = read_log(site / "access.jsonl")
    assert sum(entry.status == 200 for entry in log) > 100
    forbidden = {Policy.NEVER_REQUESTED, Policy.NEVER_READ}
    assert {row.policy for row in read_truth(site)} >= forbidden  # there was something to ask for
    assert violations(log) == []


def test_the_model_is_traced_to_the_pages_and_verified(shapes: Shapes) -> None:
    tapir = shapes.tapir
    found = tapir.json("trace", CHAMPION)
    assert {one["stage"] for one in found["chain"]} == {*STAGES} - {"model"}
    (pairs,) = (one for one in found["chain"] if one["stage"] == "pairs")
    warc = tapir.home / "web" / "shapes" / "pages-00.warc.gz"
    assert [source["uri"] for source in pairs["sources"]] == [str(warc)]
    assert "pages-00.warc.gz" in tapir("trace", "shapes/evaluation")
    assert tapir.json("verify", CHAMPION) == {"ref": CHAMPION, "problems": []}


_DRAWS = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
drawn = mlflow.pyfunc.load_model(sys.argv[2]).predict(
    ["a large red circle"], params={"seed": 1, "candidates": 2, "keep": 1})
import tasks.drawing
print(json.dumps([png.hex() for png in drawn["png"]] + [tasks.drawing.__file__]))
"""


def test_the_registered_model_draws_in_a_fresh_process(shapes: Shapes, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    uri = f"sqlite:///{shapes.tapir.home / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DRAWS, uri, CHAMPION],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *pictures, code = json.loads(done.stdout.splitlines()[-1])
    assert not Path(code).is_relative_to(ROOT)  # the model brings its own
    (tmp_path / "drawn.png").write_bytes(bytes.fromhex(pictures[0]))
    with Image.open(tmp_path / "drawn.png") as picture:
        assert picture.size == (32, 32)


def test_sample_writes_pictures_and_a_sheet(shapes: Shapes, tmp_path: Path) -> None:
    prompt, amounts = "a small green cross on black", ("-n", "3", "-k", "2", "-o", str(tmp_path))
    written = shapes.tapir.json("sample", CHAMPION, prompt, *amounts)
    paths = [Path(path) for path in [*written["pictures"], written["sheet"]]]
    assert len(set(paths)) == 3
    for path in paths:
        with Image.open(path) as picture:
            picture.verify()
        assert path.suffix == ".png" and path.parent == tmp_path


def test_a_changed_filter_runs_its_stage_and_those_after_it(shapes: Shapes) -> None:
    setting = ("--set", "clean.filters=[{decodable: {}}, {min_size: {pixels: 33}}]")
    states = shapes.tapir.states(*setting)
    before = ("pairs", "captions", "images")
    assert states == {
        name: "effect" if name == "model" else "cached" if name in before else "run"
        for name in STAGES
    }


def test_a_comment_in_a_network_runs_nothing_and_an_edit_what_it_bears_on(
    shapes: Shapes, tmp_path: Path
) -> None:
    for room in ("flows", "infra", "model_zoo", "schemas", "tasks", "tests"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "model_zoo").rglob("*.py"):
        path.write_text(f"# A note at the top.\n{path.read_text()}\n# And one at the end.\n")
    cached = {name: "effect" if name == "model" else "cached" for name in STAGES}
    assert shapes.tapir.states(code=tmp_path) == cached
    network = tmp_path / "model_zoo" / "dalle.py"
    network.write_text(network.read_text() + "\nEDITED = True\n")
    edited = shapes.tapir.states(code=tmp_path)
    changed = {"prior", "samples", "ranked", "evaluation"}
    assert edited == cached | dict.fromkeys(changed, "run")


def test_a_lost_database_comes_back_with_every_trace(copied: Tapir) -> None:
    before = copied.json("trace", CHAMPION)
    (copied.home / "mlflow.db").unlink()
    copied("reindex")
    assert copied.json("trace", CHAMPION) == before
