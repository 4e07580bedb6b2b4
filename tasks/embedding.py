"""Pictures and captions of shards as features of a contrastive model, and classifiers over them.

Any network of `model_zoo` with two towers will do: one that the pipeline trained, or published
weights. A shard's features are kept in half precision and computed in batches of one size, the last
one filled up, so that they do not depend on how pictures were split over shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra.errors import PermanentError
from infra.shards import Sample
from model_zoo.weights import load_network
from tasks.devices import best_device
from tasks.prepared import pixels
from tasks.tokens import encode_captions, load_tokenizer

_BATCH = 64


class Encoder:
    """The two towers of a contrastive model."""

    def __init__(self, ranker: Path, text_tokenizer: Path | None) -> None:
        self.device = best_device()
        self.network: Any = load_network(ranker, self.device)
        self._tokenizer = load_tokenizer(text_tokenizer) if text_tokenizer else None

    @property
    def side(self) -> int:
        """Pixels of a side of the pictures that it sees."""
        config = self.network.config
        found = getattr(config, "resolution", None) or self.network.towers.visual.image_size
        return int(found if isinstance(found, int) else found[0])

    @property
    def scale(self) -> float:
        """What multiplies cosines before a softmax."""
        return float(self.network.towers.logit_scale.detach().exp())

    def images(self, samples: Sequence[Sample]) -> np.ndarray:
        """Features of length 1, float32 [N, D], of samples' pictures."""
        rows = torch.from_numpy(np.stack([pixels(sample, self.side) for sample in samples]))
        return self._encode(self.network.encode_images, rows)

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        """Features of length 1, float32 [N, D], of captions; those too long are cut.

        Raises:
            PermanentError: if the model reads tokens of a tokenizer that was not given.
        """
        if hasattr(self.network, "tokenize"):
            return self._encode(self.network.encode_texts, self.network.tokenize(captions))
        if self._tokenizer is None:
            raise PermanentError("text_tokenizer: this model needs one; declare it as an input")
        length = self.network.config.text_length
        tokens = encode_captions(self._tokenizer, captions, length)
        return self._encode(self.network.encode_texts, torch.from_numpy(tokens))

    @torch.no_grad()
    def _encode(self, encode: Callable[[Tensor], Tensor], rows: Tensor) -> np.ndarray:
        parts = []
        for part in rows.split(_BATCH):
            # Another number of rows may be summed in another order.
            padding = part[:1].expand(_BATCH - len(part), *part.shape[1:])
            whole = torch.cat([part, padding]).to(self.device)
            parts.append(encode(whole)[: len(part)].float().cpu())
        return np.asarray(torch.cat(parts).numpy())


def batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples, some at a time."""
    stream = iter(samples)
    while batch := list(islice(stream, _BATCH)):
        yield batch
