"""A report says when the codes of an image tokenizer no longer tell pictures apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.declaration import load_pipeline
from flows.reporting import gather
from infra.environment import Environment
from infra.manifests import METRICS
from infra.store import Store
from schemas.artifact import ImageTokenizer
from tests.infra.making import manifest, publish, unit


@pytest.mark.parametrize(
    ("collapsed", "said"),
    [
        ([0, 0, 0], None),
        ([1, 0, 1], "image_tokenizer: its codebook has collapsed"),
        ([1, 1, 0], "image_tokenizer: its codebook was collapsed up to update 20."),
    ],
)
def test_a_collapse_is_said(tmp_path: Path, collapsed: list[float], said: str | None) -> None:
    environment = Environment(home=tmp_path / "home")
    store = Store(environment.store_url)
    lines = [
        json.dumps({"name": "codebook_collapsed", "value": value, "step": 10 * number})
        for number, value in enumerate(collapsed, start=1)
    ]
    side = unit(store, tmp_path, METRICS, "\n".join(lines))
    weights = ImageTokenizer(units=(unit(store, tmp_path, "dvae.safetensors", "weights"),))
    publish(store, manifest("image_tokenizer", {"output": weights}, side=(side,)))
    notes = gather(load_pipeline("shapes"), store, environment, tmp_path / "fetched").notes
    found = [note for note in notes if "codebook" in note]
    assert [note.startswith(said) for note in found] == ([True] if said else [])
