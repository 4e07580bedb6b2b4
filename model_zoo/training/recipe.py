"""What the training system asks of a network: a recipe. It knows nothing else about it.

A module `model_zoo.NAME` offers `build_recipe(config: dict) -> Recipe`; the configuration is plain
JSON and is stored beside the trained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


class Dataset(Protocol):
    """Samples by number. The order in which they are asked for is the training system's."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, epoch: int) -> Batch:
        """The samples `indices` (int64 [n], each below `len`), as CPU tensors of n rows.

        What is drawn at random (a crop, a token dropped) is a function of (the seed that the
        dataset was made with, epoch, index) and of nothing else, so that a run that was interrupted
        or is spread over more processes sees the same samples. Rows of one key have one shape.
        """
        ...


class Recipe(Protocol):
    """A network, the data it learns from and the loss that it minimises."""

    network: nn.Module
    """All that is trained, and what is saved in the end."""

    tokens: int
    """Tokens (or image codes) of one sample; only the reported rate depends on it."""

    def dataset(self, files: Sequence[Path], seed: int) -> Dataset:
        """The samples in files, whose format is the recipe's own."""
        ...

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, Batch]:
        """The scalar loss of a batch, a mean over its samples, and metrics (detached scalars).

        Args:
            batch: as the dataset gives it, on the network's device.
            step: number of the update, from 0, for schedules that belong to the loss.
            generator: `torch.Generator` on that device, seeded by (seed, step, rank): the only
                source of randomness.
        """
        ...

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies to a parameter (`name` as in `named_parameters`)."""
        ...


@runtime_checkable
class StartsFromData(Protocol):
    """A recipe whose network takes its first weights from the data."""

    def start_from_data(self, dataset: Dataset, seed: int) -> None:
        """Change the network's weights before the first update; alike in every process."""
        ...
