"""Another generator on the same rails: what comes before it is cached, what comes after runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.declaration import load_pipeline
from tests.flows.command import ROOT, Tapir
from tests.flows.shapes import Shapes, tiny

CHAMPION = "models:/maskgit_tiny@champion"
OWN = {"prior", "samples", "ranked", "evaluation", "model"}


def test_all_but_the_generator_is_declared_as_in_shapes() -> None:
    shapes, maskgit = (load_pipeline(name).stages for name in ("shapes", "maskgit_tiny"))
    assert list(shapes) == list(maskgit)
    for name in set(shapes) - {"prior", "samples", "model"}:
        assert shapes[name].spec is maskgit[name].spec
        assert shapes[name].inputs == maskgit[name].inputs
        assert shapes[name].params.identity() == maskgit[name].params.identity()


_DRAWS = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
drawn = mlflow.pyfunc.load_model(sys.argv[2]).predict(
    ["a large red circle"], params={"seed": 1, "candidates": 2, "keep": 2})
import model_zoo.maskgit_sampler
print(json.dumps([[png.hex() for png in drawn["png"]], model_zoo.maskgit_sampler.__file__]))
"""


@pytest.mark.slow
def test_it_runs_on_what_shapes_has_made_and_draws_wherever_it_is_asked(
    shapes: Shapes, tmp_path: Path
) -> None:
    shutil.copytree(shapes.tapir.home, tmp_path / "home")
    tapir = Tapir(tmp_path, yaml.safe_dump(tiny("maskgit_tiny"), sort_keys=False))
    said = tapir("run", str(tapir.file))
    assert set(re.findall(r"(\w+): done", said)) == OWN
    assert set(re.findall(r"(\w+): cached", said)) == set(tiny()["stages"]) - OWN
    page = (tapir.home / "reports" / "maskgit_tiny" / "index.html").read_text()
    assert {"Training", "candidates held out one"} <= set(re.findall(r"<h\d[^>]*>(.*?)</h", page))

    amounts = ("-n", "2", "-k", "2", "--seed", "1", "-o", str(tmp_path / "drawn"))
    written = tapir.json("sample", CHAMPION, "a large red circle", *amounts)["pictures"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    uri = f"sqlite:///{tapir.home / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _DRAWS, uri, CHAMPION],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures, code = json.loads(done.stdout.splitlines()[-1])
    assert not Path(code).is_relative_to(ROOT)  # the model brings its own
    assert len(pictures) == len(written) == 2
