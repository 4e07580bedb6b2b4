"""What the codes of an image tokenizer keep of given pictures, measured again and again.

The figures are those of `tasks.evaluate` (mean PSNR, use of the codebook, Fréchet distance of
reconstructions from originals) on pictures that stay the same, so that they make curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.dvae import COLLAPSE_BELOW, codebook_metrics
from schemas.artifact import ImageShards, Ranker, TextTokenizer
from tasks.evaluation.distances import check_count, fid
from tasks.evaluation.features import FEATURES, Features, Inception, RankerFeatures
from tasks.evaluation.judged import Judged
from tasks.measures import psnr
from tasks.prepared import first_pictures, is_held_out

_PIXELS = 1 << 17  # in the network at a time: 256 channels of them are 134 MB


class Reconstructions:
    """Measures any network with `codes`, `decode` and `config.vocabulary`.

    Args:
        name: what the pictures are (`held_out`); each metric's name begins with it.
        pictures: gives them at a side of R pixels, uint8 [N, 3, R, R]; called once, at the first
            measurement.
        features: gives by name what rFID is taken on; called once, after that.
        device: where the network runs.

    Attributes:
        notes: sentences to be said to whoever watches; taken out by who says them.
    """

    def __init__(
        self, name: str, pictures: Callable[[int], np.ndarray],
        features: Callable[[], Mapping[str, Features]], device: torch.device,
    ) -> None:  # fmt: skip
        self.name = name
        self.device = device
        self.notes: list[str] = []
        self._sources = (pictures, features)
        self._pictures: np.ndarray | None = None
        self._features: dict[str, Features] = {}
        self._real: dict[str, np.ndarray] = {}

    def __call__(self, network: Any, step: int) -> dict[str, float]:
        """The metrics of a network."""
        first = self._pictures is None
        pictures = self._given(int(network.config.resolution))
        network.to(self.device)
        counts = torch.zeros(int(network.config.vocabulary), dtype=torch.long)
        likeness = list[np.ndarray]()
        rebuilt: dict[str, list[np.ndarray]] = {name: [] for name in self._features}
        for part in _batches(pictures):
            with torch.no_grad():
                codes = network.codes(torch.from_numpy(part).to(self.device))
                back = network.decode(codes).cpu().numpy()
            counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
            likeness.append(psnr(back, part))
            for name, found in rebuilt.items():
                found.append(self._features[name].describe(back)[FEATURES])
        below = getattr(network.config, "collapse_below", COLLAPSE_BELOW)
        metrics = {
            "psnr": float(np.concatenate(likeness).mean()),
            **{key: float(one) for key, one in codebook_metrics(counts.float(), below).items()},
        }
        for name, found in rebuilt.items():
            metrics[f"rfid/{name}"] = fid(np.concatenate(found), self._real[name])["fid"]
        if first:  # it does not change
            metrics["pictures"] = float(len(pictures))
        return {f"{self.name}/{key}": value for key, value in metrics.items()}

    def _given(self, side: int) -> np.ndarray:
        """The pictures, and their features where there are enough of them for a distance."""
        if self._pictures is not None:
            return self._pictures
        give, features = self._sources
        pictures = give(side)
        for name, one in features().items():
            parts = (one.describe(part)[FEATURES] for part in _batches(pictures))
            real = [next(parts)]
            try:
                check_count(len(pictures), real[0].shape[1])
            except PermanentError as error:
                self.notes.append(f"rfid/{name} is not measured: {error}")
            else:
                self._features[name], self._real[name] = one, np.concatenate([*real, *parts])
        self._pictures = pictures
        return pictures


def build_judge(
    images: ImageShards, held_out: float, judged: Judged, work: Work,
    text_tokenizer: TextTokenizer | None, ranker: Ranker | None,
) -> Reconstructions:  # fmt: skip
    """What judges by the pictures that are held out, or by the first ones where none is.

    rFID is taken on the features of the ranker and of Inception, as far as they are given;
    `work.sources` has the weights of the latter.
    """
    device = torch.device(judged.device)

    def pictures(side: int) -> np.ndarray:
        shards = (work.fetch(unit) for unit in images.units)
        wanted = (lambda one: is_held_out(one.key, held_out)) if held_out else (lambda one: True)
        return first_pictures(shards, side, judged.pictures, wanted)[0]

    def features() -> dict[str, Features]:
        found: dict[str, Features] = {}
        if ranker and text_tokenizer:
            reads = work.fetch(text_tokenizer.units[0])
            found["ranker"] = RankerFeatures(work.fetch(ranker.units[0]), reads, device)
        if judged.inception:
            found["inception"] = Inception(work.fetch(work.sources[0]), work.scratch, device)
        return found

    return Reconstructions("held_out" if held_out else "trained_on", pictures, features, device)


def _batches(pictures: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _PIXELS // (pictures.shape[-1] * pictures.shape[-2]))
    return (pictures[at : at + size] for at in range(0, len(pictures), size))
