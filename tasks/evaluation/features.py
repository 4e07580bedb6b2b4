"""Features of pictures: of a ranker of ours, or of the Inception network that the field uses.

The Inception network is torch-fidelity's, with the weights of the original FID, so that its figures
compare with those of papers. A ranker's compare only with others of the same ranker, which is why
the name of every metric says whose features it is over.
"""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from infra.errors import PermanentError
from infra.work import ShardWork
from schemas.artifact import Unit
from schemas.base import Frozen
from tasks.devices import best_device
from tasks.judging import Judge

INCEPTION_WIDTH = 2048  # features of its last pooling
_BATCH = 32  # pictures that go through Inception, at 299 x 299, or are blurred at once

FEATURES, LOGITS = "features", "logits"
Whose = Literal["ranker", "evaluator", "inception"]


class Extractor(Frozen):
    """What turns pictures into features."""

    name: Whose
    weights: Unit
    text_tokenizer: Unit | None = None

    def load(self, shard: ShardWork) -> Features:
        """The network, where it is to be used."""
        weights = shard.fetch(self.weights)
        if self.text_tokenizer is None:
            return Inception(weights, shard.scratch)
        return RankerFeatures(weights, shard.fetch(self.text_tokenizer))


class Features(Protocol):
    """Gives arrays [N, D] of pictures uint8 [N, 3, H, W]: `features`, and `logits` if it has."""

    def describe(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays by name."""
        ...


class RankerFeatures:
    """The features that a ranker compares with captions.

    It has no logits: it knows no classes, and a list of captions in their place would make an
    Inception Score of the list. So that score is given on Inception only.
    """

    def __init__(
        self, ranker: Path, text_tokenizer: Path, device: torch.device | None = None
    ) -> None:  # fmt: skip
        self.judge = Judge(ranker, text_tokenizer, device)

    def describe(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Features of length 1."""
        return {FEATURES: self.judge.images(pictures)}


class Inception:
    """Inception v3 of the original FID; logits are those of the Inception Score (no biases)."""

    def __init__(
        self, weights: Path, scratch: Path, device: torch.device | None = None
    ) -> None:  # fmt: skip
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = device or best_device()
        checked = _checked(weights, scratch / "inception.pth")
        try:
            network = FeatureExtractorInceptionV3(
                "inception", [str(INCEPTION_WIDTH), "logits_unbiased"], str(checked)
            )
        except RuntimeError as error:
            raise PermanentError(
                f"inception: {weights.name} holds other weights than torch-fidelity's Inception:"
                f" {str(error)[:300]}"
            ) from error
        self.network = network.to(self.device)

    @torch.no_grad()
    def describe(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Features and logits."""
        rows = torch.from_numpy(pictures)
        parts: list[Any] = [self.network(part.to(self.device)) for part in rows.split(_BATCH)]
        features, logits = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        return {FEATURES: features, LOGITS: logits}


def _checked(weights: Path, target: Path) -> Path:
    """The file's tensors, written anew: the library unpickles whatever it is given."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise PermanentError(
            f"inception: {weights.name} is no file of tensors alone, so it is not opened"
        ) from error
    torch.save(state, target)
    return target


def blurred(pictures: np.ndarray, radius: float) -> np.ndarray:
    """Pictures uint8 [N, 3, H, W] after a Gaussian blur; edges are repeated.

    Args:
        radius: the standard deviation in pixels (the paper says no more than "radius"); 0 leaves
            all as it is.
    """
    if radius == 0:
        return pictures
    down, across = (_gaussian(size, radius) for size in pictures.shape[-2:])
    parts = [
        (down @ part.float() @ across.T).round().clamp(0, 255).to(torch.uint8)
        for part in torch.from_numpy(pictures).split(_BATCH)
    ]
    return np.asarray(torch.cat(parts).numpy())


@functools.lru_cache(maxsize=64)
def _gaussian(size: int, radius: float) -> torch.Tensor:
    """SciPy's Gaussian filter of a line of pixels, as the matrix [size, size] that it is."""
    return torch.from_numpy(gaussian_filter1d(np.eye(size), radius, axis=0, mode="nearest")).float()
