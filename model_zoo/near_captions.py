"""Captions that are nearly right: hard negatives for a contrastive model.

Trained on random negatives, a contrastive model may take a caption for a bag of words (Yuksekgonul
et al., arXiv 2210.01936), and a batch seldom holds two captions that differ in one word. So near
ones are made: two words of one kind change places, or a word gives way to another of its kind.
Which words are of one kind is read from the captions: those that stand between the same neighbours
(Harris 1954), measured by the Bhattacharyya coefficient of the frequencies of their contexts.
Words that never stand side by side in any caption are not put there: what is never said would
always be wrong, and could not be ranked by afterwards (on the demo's held-out combinations). A few
near captions mean the same as before; so do some of any batch.

L tokens, -1 after the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_zoo.crops import CropConfig, PictureFiles

Change = tuple[tuple[int, int], ...]  # places in a caption, each with its new token

# Coefficient from which two words are of one kind. In the demo's captions two colours, shapes or
# directions have 0.58 and more, other pairs seldom over 0.5.
_KIND = 0.5
_TOKENS, _CONTEXTS = 2048, 4096  # the most frequent ones, so that large vocabularies fit in memory


class NearCaptions:
    """Words of one kind in a set of captions, and the near captions that they make."""

    def __init__(self, captions: np.ndarray) -> None:
        """Read int [N, L]."""
        self.kinds = _kinds(captions)
        self.neighbours = _neighbours(captions)

    def draw(self, caption: Sequence[int], random: np.random.Generator) -> list[int]:
        """A caption that is nearly this one; itself where there is none."""
        near = list(caption)
        chance = random.random(2)
        changes = self.swaps(near) if chance[0] < 0.5 else []
        changes = changes or self.replacements(near)
        if changes:
            for place, token in changes[int(chance[1] * len(changes))]:
                near[place] = token
        return near

    def swaps(self, caption: Sequence[int]) -> list[Change]:
        """All ways in which two different words of one kind can change places."""
        places = [place for place, token in enumerate(caption) if token in self.kinds]
        found: list[Change] = [
            ((first, caption[second]), (second, caption[first]))
            for first, second in itertools.combinations(places, 2)
            if caption[second] in self.kinds[caption[first]]
        ]
        return [change for change in found if self._is_plausible(caption, change)]

    def replacements(self, caption: Sequence[int]) -> list[Change]:
        """All ways in which one word can give way to another of its kind."""
        found: list[Change] = [
            ((place, other),)
            for place, token in enumerate(caption)
            for other in self.kinds.get(token, ())
        ]
        return [change for change in found if self._is_plausible(caption, change)]

    def _is_plausible(self, caption: Sequence[int], change: Change) -> bool:
        changed = [-1, *caption, -1]
        for place, token in change:
            changed[place + 1] = token
        return all(
            (changed[place], token) in self.neighbours
            and (token, changed[place + 2]) in self.neighbours
            for place, token in change
        )


class NearPairs:
    """Pictures and captions of files, each with `count` near captions: "near" [B, count, L]."""

    def __init__(
        self, files: Sequence[Path], seed: int, side: int, crops: CropConfig, count: int
    ) -> None:
        self.pairs = PictureFiles(files, seed, side, crops, ("tokens",))
        self.seed, self.count = seed, count
        self.near = NearCaptions(torch.cat([t["tokens"] for t in self.pairs.tables]).numpy())

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """The records at these indices, and their near captions of this epoch."""
        batch = self.pairs.batch(indices, epoch)
        rows = [
            self._near(caption, int(index), epoch)
            for caption, index in zip(batch["tokens"].tolist(), indices, strict=True)
        ]
        return {**batch, "near": torch.tensor(rows, dtype=batch["tokens"].dtype)}

    def _near(self, caption: list[int], index: int, epoch: int) -> list[list[int]]:
        # The 1 keeps this stream apart from that of the crops.
        stream = np.random.Philox(key=[self.seed, epoch], counter=[0, 1, index, 0])
        random = np.random.Generator(stream)
        return [self.near.draw(caption, random) for _ in range(self.count)]


def _kinds(captions: np.ndarray) -> dict[int, list[int]]:
    """For each token that has any: the others of its kind."""
    tokens, shares = _contexts(captions)
    alike = shares @ shares.T >= _KIND
    np.fill_diagonal(alike, False)
    rows = zip(tokens.tolist(), alike, strict=True)
    return {token: tokens[row].tolist() for token, row in rows if row.any()}


def _neighbours(captions: np.ndarray) -> set[tuple[int, int]]:
    """Which two tokens stand side by side somewhere; -1 is an end of the caption."""
    padded = np.pad(captions.astype(np.int64), ((0, 0), (1, 1)), constant_values=-1)
    pairs = np.stack([padded[:, :-1], padded[:, 1:]], axis=-1).reshape(-1, 2)
    return {(int(one), int(other)) for one, other in np.unique(pairs, axis=0)}


def _contexts(captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent tokens [T], and the root of each context's share in their uses [T, C]."""
    padded = np.pad(captions.astype(np.int64), ((0, 0), (1, 1)), constant_values=-1)
    used = captions >= 0
    middle = captions[used]
    # The neighbours on both sides as one number; -1 is an end of the caption.
    around = (padded[:, :-2][used] + 1 << 32) + padded[:, 2:][used] + 1
    tokens, token = _most_frequent(middle, _TOKENS)
    contexts, context = _most_frequent(around, _CONTEXTS)
    uses = np.bincount(token[token >= 0], minlength=len(tokens))
    both = (token >= 0) & (context >= 0)
    counts = np.zeros((len(tokens), len(contexts)), dtype=np.float32)
    np.add.at(counts, (token[both], context[both]), 1)
    return tokens, np.sqrt(counts / np.maximum(uses, 1)[:, None])


def _most_frequent(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent values, and for each value its number among them or -1."""
    distinct, number, count = np.unique(values, return_inverse=True, return_counts=True)
    kept = np.sort(np.argsort(-count, kind="stable")[:most])
    place = np.full(len(distinct), -1)
    place[kept] = np.arange(len(kept))
    return distinct[kept], place[number]
