"""Pictures are blurred as others blur them; Inception is the library's, and opens no pickles."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image, ImageFilter

from infra.errors import PermanentError
from tasks.devices import steady_threads
from tasks.evaluation.features import FEATURES, LOGITS, Inception, blurred


@pytest.mark.parametrize("radius", [0.5, 1, 2, 4, 8])
def test_a_blur_is_scipys_gaussian_filter(radius: float) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 24, 32), dtype=np.uint8)
    pictures[1] = np.where(np.arange(32) < 16, 255, 0)  # an edge
    expected = scipy.ndimage.gaussian_filter(
        pictures.astype(np.float64), sigma=(0, 0, radius, radius), mode="nearest"
    )
    found = blurred(pictures, radius)
    assert found.shape == pictures.shape and found.dtype == np.uint8
    assert np.abs(found - expected).max() < 0.501  # it is rounded to whole levels


def test_a_radius_means_what_it_does_to_pillow() -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[20:50, 10:40] = 255
    plain = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)))
    found = blurred(pixels.transpose(2, 0, 1)[None], 4)[0].transpose(1, 2, 0)
    # Pillow makes a Gaussian of three box blurs, and goes on from the blurred edge.
    assert np.abs(found.astype(int) - plain).max() < 6


def test_no_blur_changes_nothing() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
    assert blurred(pictures, 0) is pictures
    assert (blurred(np.full_like(pictures, 90), 3) == 90).all()


def library_network(folder: Path) -> Any:
    """The library's network with weights drawn at random: the real ones are not at hand here."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.save({}, folder / "nothing.pth")
    torch.manual_seed(0)
    network = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    features = ["logits_unbiased", "2048"]
    with pytest.raises(RuntimeError, match="Missing key"):  # it is built before it is filled
        network.__init__("inception", features, str(folder / "nothing.pth"))
    return network.eval()


def test_inception_gives_the_features_and_logits_of_the_library(tmp_path: Path) -> None:
    network = library_network(tmp_path)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    pictures = np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    with steady_threads(), torch.no_grad():
        found = Inception(tmp_path / "weights.pth", tmp_path).describe(pictures)
        logits, features = network(torch.from_numpy(pictures))
    assert found[FEATURES].shape == (2, 2048)
    assert found[LOGITS].shape == (2, 1008)
    np.testing.assert_allclose(found[FEATURES], features.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[LOGITS], logits.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_that_are_code_are_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    for name, save in (("torch.pth", torch.save), ("plain.pth", _pickle)):
        save({"fc.bias": Hostile()}, tmp_path / name)
        with pytest.raises(PermanentError, match=f"{name} is no file of tensors alone"):
            Inception(tmp_path / name, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(PermanentError, match="other weights than torch-fidelity's Inception"):
        Inception(tmp_path / "other.pth", tmp_path)


def _pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))
