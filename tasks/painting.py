"""Pictures for prompts: a prior draws codes, an image tokenizer decodes them.

`sample_images`, `tapir sample` and the registered model all paint with this, so that the same seed
gives the same picture everywhere. P prompts, N candidates each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_zoo.generators import load_generator
from model_zoo.weights import load_network
from schemas.base import Frozen
from tasks.devices import best_device
from tasks.fitting import check_painting
from tasks.tokens import encode_prompts, load_tokenizer

_BATCH = 256  # pictures that are decoded at once
_GREY = np.uint8(128)

Watch = Callable[[np.ndarray], None]


class Painter:
    """Draws codes from a prior and decodes them to pictures.

    Raises:
        PermanentError: if the parts were not made for one another.
    """

    def __init__(self, prior: Path, image_tokenizer: Path, text_tokenizer: Path) -> None:
        self.text_tokenizer = load_tokenizer(text_tokenizer)
        check_painting(prior, image_tokenizer, self.text_tokenizer)
        device = best_device()
        self.prior = load_generator(prior, device)
        self.image_tokenizer: Any = load_network(image_tokenizer, device)

    def paint(
        self, prompts: Sequence[str], seeds: np.ndarray, sampling: Frozen | None = None,
        given: np.ndarray | None = None, watch: Watch | None = None, cache_gb: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Codes int32 [P, N, h, w] and pictures uint8 [P, N, 3, H, W] for seeds int64 [P, N].

        Args:
            sampling: the generator's settings; None is as it draws by default.
            given: codes int64 [h, w] that every candidate begins with, -1 where one is to be drawn.
            watch: is told the codes so far, int32 [P, N, h, w], -1 where none is drawn yet.
            cache_gb: memory that the prior's keys and values may take; None is its own bound.

        Raises:
            BadPrompt: for a prompt that cannot be drawn (`tasks.tokens`), a ValueError.
            ValueError: for a setting that the generator does not know, or a bound that does not
                hold one candidate.
        """
        tokens = encode_prompts(self.text_tokenizer, prompts, self.prior.text_length)
        known = None
        if given is not None:
            known = torch.from_numpy(given).expand(len(prompts), -1, -1)
        drawn = self.prior.draw(
            torch.from_numpy(tokens), torch.from_numpy(seeds), sampling, known,
            (lambda codes: watch(_as_array(codes))) if watch else None, cache_gb,
        )  # fmt: skip
        codes = _as_array(drawn)
        return codes, decode(self.image_tokenizer, codes)


def decode(image_tokenizer: Any, codes: np.ndarray) -> np.ndarray:
    """Pictures uint8 [..., 3, H, W] of codes int32 [..., h, w]."""
    device = next(image_tokenizer.parameters()).device
    rows = torch.from_numpy(codes).long().flatten(0, -3)
    parts = [image_tokenizer.decode(part.to(device)).cpu() for part in rows.split(_BATCH)]
    pictures = torch.cat(parts).numpy()
    return pictures.reshape(*codes.shape[:-2], *pictures.shape[1:])


def decode_part(image_tokenizer: Any, codes: np.ndarray) -> np.ndarray:
    """Pictures of codes of which some are -1: grey where nothing is drawn yet."""
    pictures = decode(image_tokenizer, np.maximum(codes, 0))
    height = pictures.shape[-2] // codes.shape[-2]
    width = pictures.shape[-1] // codes.shape[-1]
    missing = np.repeat(np.repeat(codes < 0, height, axis=-2), width, axis=-1)
    return np.where(missing[..., None, :, :], _GREY, pictures)


def _as_array(codes: torch.Tensor) -> np.ndarray:
    return codes.to(torch.int32).cpu().numpy()


def candidate_seeds(seed: int, prompts: Sequence[str], candidates: int) -> np.ndarray:
    """The seed of each candidate, int64 [P, N]: a function of seed, prompt and number alone."""
    rows = [[_derive(seed, prompt, i) for i in range(candidates)] for prompt in prompts]
    return np.array(rows, dtype=np.int64).reshape(len(prompts), candidates)


def _derive(seed: int, prompt: str, number: int) -> int:
    text = json.dumps([seed, prompt, number])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
