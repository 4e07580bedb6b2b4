"""Scores for pictures: a contrastive model says how well each matches its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model_zoo.weights import load_network, read_header
from tasks.devices import best_device
from tasks.fitting import check_judging
from tasks.tokens import encode_captions, encode_prompts, load_tokenizer

_BATCH = 256  # rows that go through the network at once


class Judge:
    """Scores how well pictures match prompts, with a contrastive model; on the best device there is
    if none is given.

    Raises:
        PermanentError: if the model reads other tokens than the text tokenizer's.
    """

    def __init__(
        self, ranker: Path, text_tokenizer: Path, device: torch.device | None = None
    ) -> None:  # fmt: skip
        self.text_tokenizer = load_tokenizer(text_tokenizer)
        check_judging(ranker, self.text_tokenizer)
        self.device = device or best_device()
        self.name, _ = read_header(ranker)
        self.ranker: Any = load_network(ranker, self.device)

    def scores(self, prompts: Sequence[str], pictures: np.ndarray) -> np.ndarray:
        """Cosine similarity, float32 [P, N], of pictures uint8 [P, N, 3, H, W] to their prompts."""
        texts, images = self.texts(prompts), self.images(pictures)
        return np.asarray(np.einsum("pd,pnd->pn", texts, images))

    def images(self, pictures: np.ndarray) -> np.ndarray:
        """Features of length 1, float32 [..., D], of pictures uint8 [..., 3, H, W]."""
        features = self._features(
            self.ranker.encode_images, torch.from_numpy(pictures).flatten(0, -4)
        )
        return features.reshape(*pictures.shape[:-3], -1)

    def texts(self, prompts: Sequence[str]) -> np.ndarray:
        """Features of length 1, float32 [P, D], of prompts."""
        return self._features(self.ranker.encode_texts, self._tokens(prompts))

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """The same of captions as they are found, which are cut where they are too long."""
        if hasattr(self.ranker, "tokenize"):
            return self.texts(captions)
        length = self.ranker.config.text_length
        tokens = encode_captions(self.text_tokenizer, captions, length)
        return self._features(self.ranker.encode_texts, torch.from_numpy(tokens))

    def _tokens(self, prompts: Sequence[str]) -> Tensor:
        if hasattr(self.ranker, "tokenize"):  # it was trained elsewhere, on tokens of its own
            return self.ranker.tokenize(prompts)
        length = self.ranker.config.text_length
        return torch.from_numpy(encode_prompts(self.text_tokenizer, prompts, length))

    @torch.no_grad()
    def _features(self, encode: Callable[[Tensor], Tensor], rows: Tensor) -> np.ndarray:
        parts = [encode(part.to(self.device)).cpu() for part in rows.split(_BATCH)]
        return np.asarray(functional.normalize(torch.cat(parts).float(), dim=-1).numpy())
