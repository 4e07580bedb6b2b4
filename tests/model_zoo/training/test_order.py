"""Every epoch sees each sample once, whatever the processes."""

import numpy as np
import pytest
import torch

from model_zoo.training.order import Order


class _Numbers:
    """A dataset whose samples are (their number, the epoch)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def batch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        return {"pair": torch.tensor([[index, epoch] for index in indices.tolist()])}


@pytest.mark.parametrize("samples", [3, 10, 12, 50])
def test_each_epoch_sees_every_sample_once_in_an_order_of_its_own(samples: int) -> None:
    order = Order(_Numbers(samples), 4, seed=5, rank=0, size=1)
    seen = torch.cat([order.batch(step)["pair"] for step in range(samples)])
    assert len(seen) == 4 * samples
    for epoch in range(4):
        numbers = seen[epoch * samples : (epoch + 1) * samples]
        assert set(numbers[:, 1].tolist()) == {epoch}
        assert sorted(numbers[:, 0].tolist()) == list(range(samples))
    assert samples == 3 or not torch.equal(seen[:samples, 0], seen[samples : 2 * samples, 0])


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_updates_that_one_would_do(size: int) -> None:
    whole = Order(_Numbers(10), 4, seed=5, rank=0, size=1)
    parts = [Order(_Numbers(10), 4, seed=5, rank=rank, size=size) for rank in range(size)]
    for step in (0, 2, 7):  # update 2 straddles two epochs
        shared = torch.cat([part.batch(step)["pair"] for part in parts])
        assert torch.equal(shared, whole.batch(step)["pair"])


def test_no_sample_is_missed_or_seen_twice_when_processes_come_and_go() -> None:
    """Four processes up to update 3, two up to 6, then eight: as it would be without a change."""
    seen = []
    for step in range(10):
        size = 4 if step < 3 else 2 if step < 6 else 8
        for rank in range(size):
            seen.append(Order(_Numbers(20), 8, 5, rank, size).batch(step)["pair"])
    numbers = torch.cat(seen)
    for epoch in range(4):
        assert sorted(numbers[numbers[:, 1] == epoch, 0].tolist()) == list(range(20))


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: 4 does not divide among 3 processes"):
        Order(_Numbers(10), 4, seed=5, rank=0, size=3)
    with pytest.raises(ValueError, match="not one sample"):
        Order(_Numbers(0), 4, seed=5, rank=0, size=1)
