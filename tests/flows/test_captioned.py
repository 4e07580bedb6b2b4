"""A set of pictures that others captioned, as one pipeline: read, drawn for, ranked, evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from infra.environment import Environment
from infra.manifests import latest
from infra.shards import read_shard
from infra.store import Store
from schemas.artifact import ImageShards
from tests.flows.command import Tapir
from tests.flows.shapes import Shapes, tiny

COUNT, OWN = 20, 6  # pictures of the set, and those that were trained on


@pytest.mark.slow
def test_a_trained_model_is_evaluated_on_the_captions_of_a_folder(
    shapes: Shapes, tmp_path: Path
) -> None:
    shutil.copytree(shapes.tapir.home, tmp_path / "home")
    write_folder(shapes, tmp_path / "set")
    values = tiny()
    stages = values["stages"]
    del stages["model"]
    stages["validation"] = {
        "task": "read_captioned",
        "params": {"format": "folder", "files": [str(tmp_path / "set" / "*")], "count": COUNT},
    }
    samples = stages["samples"]
    samples["inputs"]["pairs"] = "validation"
    del samples["params"]["prompts_file"], samples["params"]["per_group"]
    evaluation = stages["evaluation"]
    evaluation["inputs"]["reference"] = "validation"
    evaluation["params"] |= {
        "checker": None,
        "comparison": {"radii": [0, 2], "of_each": 1, "overlap": 0.999999},
    }
    tapir = Tapir(tmp_path, yaml.safe_dump(values, sort_keys=False))
    said = tapir("run", str(tapir.file))
    assert "evaluation: done" in said and "prior: cached" in said

    store = Store(Environment(home=tapir.home).store_url)
    manifest = latest(store, values["name"], "evaluation")
    assert manifest is not None
    units = {unit.name: unit for output in manifest.outputs.values() for unit in output.units}
    found = json.loads(store.fetch(units["metrics.json"], tmp_path / "fetched").read_text())
    metrics, compared = found["metrics"], found["comparison"]
    assert {"fid/ranker/blur_0", "fid/ranker/blur_2", "clip_score/ranker/real"} <= set(metrics)
    assert metrics["overlap/ranker/count"] == OWN
    assert "fid/ranker/without_overlap/blur_0" in metrics
    assert compared["real pictures are"] == "a set to evaluate on"
    assert compared["drawn, real pictures without overlap"] == [COUNT - OWN] * 2
    lines = store.fetch(units["overlap.jsonl"], tmp_path / "fetched").read_text().splitlines()
    assert len(lines) == COUNT
    page = (tapir.home / "reports" / values["name"] / "index.html").read_text()
    assert "fid/ranker/blur_2" in page


def write_folder(shapes: Shapes, folder: Path) -> None:
    """Pictures with their captions as files beside each other; the first ones were trained on."""
    folder.mkdir()
    outputs = shapes.manifest("unique").outputs.values()
    (shard, *_) = (unit for o in outputs if o.kind == ImageShards.kind for unit in o.units)
    samples = list(read_shard(shapes.store.fetch(shard, folder.parent / "shard")))[:COUNT]
    assert len(samples) == COUNT
    noise = np.random.default_rng(0)
    for number, sample in enumerate(samples):
        path = folder / f"{sample.key}.{sample.extension}"
        path.with_suffix(".txt").write_text(sample.caption)
        if number < OWN:
            path.write_bytes(sample.image)
        else:
            pixels = noise.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(path.with_suffix(".png"))
