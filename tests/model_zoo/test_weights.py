"""A network's file holds what rebuilds it, and refuses what does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_zoo.dalle import build_recipe
from model_zoo.weights import load_network, read_header, save_network

SIZES = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 8, "grid_height": 2,
    "grid_width": 3, "width": 16, "heads": 2, "layers": 2,
}  # fmt: skip


def test_a_saved_network_is_the_same_when_loaded(tmp_path: Path) -> None:
    network = build_recipe(SIZES).network
    path = tmp_path / "prior.safetensors"
    save_network(path, network, "dalle", SIZES)
    assert read_header(path) == ("dalle", SIZES)
    loaded = load_network(path)
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_the_same_weights_make_the_same_bytes(tmp_path: Path) -> None:
    network = build_recipe(SIZES).network
    for name in ("a", "b"):
        save_network(tmp_path / name, network, "dalle", dict(sorted(SIZES.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_weights_of_another_size_are_refused_with_both(tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    save_network(path, build_recipe(SIZES).network, "dalle", {**SIZES, "image_vocabulary": 9})
    with pytest.raises(ValueError, match=r"image_embedding.weight is \(8, 16\) in.*, \(9, 16\) in"):
        load_network(path)


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(ValueError, match="not a network of ours"):
        load_network(tmp_path / "plain")
    for name, words in [("os", "no module model_zoo.os"), ("masks", "no build_recipe"),
                        ("../dalle", "no module")]:  # fmt: skip
        metadata = {"tapir": json.dumps({"network": name, "config": {}})}
        save_file({"x": torch.zeros(1)}, tmp_path / "other", metadata)
        with pytest.raises(ValueError, match=words):
            load_network(tmp_path / "other")
