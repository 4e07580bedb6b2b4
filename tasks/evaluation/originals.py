"""Training pictures, and what is left of them after they have been codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_zoo.weights import load_network
from tasks.devices import best_device
from tasks.measures import psnr, ssim
from tasks.painting import decode

_BATCH = 256


@dataclass(frozen=True)
class Reconstructed:
    """Originals and reconstructions, uint8 [N, 3, R, R], with the codes between, [N, h, w]."""

    captions: tuple[str, ...]
    originals: np.ndarray
    codes: np.ndarray
    pictures: np.ndarray
    vocabulary: int

    def metrics(self) -> dict[str, float]:
        """Likeness, and how much of the codebook these pictures use."""
        counts = np.bincount(self.codes.ravel(), minlength=self.vocabulary)
        share = counts[counts > 0] / counts.sum()
        return {
            "reconstruction/psnr": float(psnr(self.pictures, self.originals).mean()),
            "reconstruction/ssim": float(ssim(self.pictures, self.originals).mean()),
            "codebook/use": float((counts > 0).mean()),
            "codebook/perplexity": float(np.exp(-(share * np.log(share)).sum())),
        }


def reconstruct(
    image_tokenizer: Path, originals: np.ndarray, captions: tuple[str, ...]
) -> Reconstructed:
    """Turn pictures into codes and back."""
    device = best_device()
    network: Any = load_network(image_tokenizer, device)
    parts = [
        network.codes(part.to(device)).cpu() for part in torch.from_numpy(originals).split(_BATCH)
    ]
    codes = torch.cat(parts).to(torch.int32).numpy()
    vocabulary = int(network.config.vocabulary)
    return Reconstructed(captions, originals, codes, decode(network, codes), vocabulary)
