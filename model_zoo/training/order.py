"""Which samples make up which update: a function of (seed, step), whatever the processes."""

from __future__ import annotations

import numpy as np
import torch

from model_zoo.draw_by_index import shuffled
from model_zoo.training.recipe import Batch, Dataset


class Order:
    """An endless stream of epochs, each a permutation of all samples by (seed, epoch).

    Update s takes places s·batch to (s + 1)·batch of the stream, so none is missed or seen twice in
    an epoch, also where an update straddles two. Process r of n takes the r-th of n equal runs of
    an update.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, rank: int, size: int) -> None:
        if not len(dataset):
            raise ValueError("files: there is not one sample to train on")
        if batch_size % size:
            raise ValueError(f"batch_size: {batch_size} does not divide among {size} processes")
        self.dataset = dataset
        self.batch_size = batch_size
        self.share = batch_size // size
        self.rank = rank
        self.seed = seed

    def batch(self, step: int) -> Batch:
        """This process's part of an update's samples."""
        parts = [self.dataset.batch(indices, epoch) for epoch, indices in self.parts(step)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def parts(self, step: int) -> list[tuple[int, np.ndarray]]:
        """(epoch, samples of it) for each epoch that this process's part of an update touches."""
        first = step * self.batch_size + self.rank * self.share
        epochs, places = np.divmod(np.arange(first, first + self.share), len(self.dataset))
        size = len(self.dataset)
        return [
            (int(epoch), shuffled(places[epochs == epoch], size, self.seed, int(epoch)))
            for epoch in np.unique(epochs)
        ]
