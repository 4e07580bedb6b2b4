"""Every network of the zoo under every engine: all that its loss calls is there and learns."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model_zoo.weights import load_network
from tests.model_zoo.training.cases import Case, Network, run_cases, write_noisy_pairs

_GRID = {"text_vocabulary": 20, "text_length": 4, "image_vocabulary": 16, "grid_height": 4,
         "grid_width": 4, "width": 32, "heads": 2, "layers": 2}  # fmt: skip
_DVAE = {"resolution": 16, "vocabulary": 16, "width": 16, "multipliers": [1, 2], "blocks": 1,
         "decoder_width": 16, "stem_kernel": 3}  # fmt: skip
_CLIP = {"text_vocabulary": 20, "text_length": 4, "resolution": 16, "image_width": 32,
         "image_layers": 1, "text_width": 32, "text_layers": 1}  # fmt: skip
_ENGINES: dict[str, dict[str, Any]] = {
    "plain": {"engine": "torch"},
    "ZeRO 2": {"zero_stage": 2},
    "ZeRO 2, offloaded": {"zero_stage": 2, "offload": True},
    "ZeRO 3": {"zero_stage": 3},
    "FSDP2": {"engine": "fsdp"},
}
_TRAINED = [
    *itertools.product(["dvae", "clip", "maskgit"], ["plain", "ZeRO 2", "ZeRO 3", "FSDP2"]),
    *itertools.product(["dalle"], ["plain", "ZeRO 2, offloaded"]),  # the rest is test_parity's
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Case]:
    """Every network by every engine, on two processes of one machine."""
    folder = tmp_path_factory.mktemp("networks")
    pairs, pictures = write_noisy_pairs(folder / "pairs.safetensors"), folder / "pictures"
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 3, 24, 24), generator=draw, dtype=torch.uint8)
    tokens = torch.randint(0, 20, (32, 4), generator=draw, dtype=torch.int32)
    save_file({"images": images, "tokens": tokens}, pictures)
    networks = [
        Network("dvae", _DVAE, pictures),
        Network("clip", _CLIP, pictures),
        Network("maskgit", _GRID, pairs),
        Network("dalle", {**_GRID, "conv_kernel": 3}, pairs),
    ]
    by_name = {network.name: network for network in networks}
    training = {"steps": 8, "warmup": 1, "ema": None}
    cases = {
        (name, engine): Case(
            folder, f"{name}, {engine}", network=by_name[name], **training, **_ENGINES[engine]
        )
        for name, engine in _TRAINED
    }
    run_cases(list(cases.values()), 2)
    return cases


@pytest.mark.parametrize(
    ("network", "engine"), [(name, engine) for name, engine in _TRAINED if engine != "plain"]
)
def test_a_sharded_network_learns_as_a_whole_one(
    trained: dict[tuple[str, str], Case], network: str, engine: str
) -> None:
    found, wanted = trained[network, engine], trained[network, "plain"]
    np.testing.assert_allclose(found.losses(), wanted.losses(), rtol=1e-4)
    assert wanted.losses()[-1] != wanted.losses()[0]
    weights, expected = load_file(found.output), load_file(wanted.output)
    assert {n: w.shape for n, w in weights.items()} == {n: w.shape for n, w in expected.items()}
    load_network(found.output)
