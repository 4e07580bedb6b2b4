"""Schedules, order of samples, average of weights, decay groups, configuration."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model_zoo.dalle import build_recipe
from model_zoo.training.config import TrainingConfig
from model_zoo.training.ema import Average
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.order import Order
from model_zoo.training.precision import set_precision
from model_zoo.training.schedules import learning_rate
from tests.model_zoo.training.conftest import SIZES

BASE = {"steps": 100, "batch_size": 4, "learning_rate": 2.0}


def test_cosine_rises_linearly_and_falls_along_half_a_cosine() -> None:
    config = TrainingConfig(**BASE, warmup=9, final_learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.2)
    wanted = [1 + (1 + math.cos(math.pi * i / 91)) / 2 for i in range(91)]
    np.testing.assert_allclose(rates[9:], wanted)


def test_constant_stays_after_the_warm_up() -> None:
    config = TrainingConfig(**BASE, warmup=3, schedule="constant")
    rates = [learning_rate(config, step) for step in range(6)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warmup": 100}, "warmup: 100 updates, but only 100"),
        ({"schedule": "constant", "final_learning_rate": 1.0}, "no meaning with"),
        ({"final_learning_rate": 3.0}, "3.0 is above learning_rate 2.0"),
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"steps": 0}, "steps"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainingConfig(**{**BASE, **changes})


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


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: 4 does not divide among 3 processes"):
        Order(_Numbers(10), 4, seed=5, rank=0, size=3)
    with pytest.raises(ValueError, match="not one sample"):
        Order(_Numbers(0), 4, seed=5, rank=0, size=1)


def test_average_moves_by_its_decay_and_survives_saving(tmp_path) -> None:
    weights = {"w": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    average = Average(weights, decay=0.9)
    average.update({"w": torch.tensor([2.0, 0.0]), "count": torch.tensor(4)})
    torch.testing.assert_close(average.weights["w"], torch.tensor([1.1, 1.8]))
    assert average.weights["count"] == 4
    average.save(tmp_path / "average")
    other = Average({"w": torch.zeros(2), "count": torch.tensor(0)}, decay=0.9)
    other.load(tmp_path / "average")
    assert torch.equal(other.weights["w"], average.weights["w"]) and other.weights["count"] == 4


def test_decay_applies_where_the_recipe_says() -> None:
    recipe = build_recipe(SIZES)
    optimizer = build_optimizer(recipe, TrainingConfig(**BASE, weight_decay=0.1, betas=(0.9, 0.96)))
    decaying, others = optimizer.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(decaying["params"]) == 8
    assert len(decaying["params"]) + len(others["params"]) == len(list(recipe.network.parameters()))


def test_a_precision_that_a_network_does_not_know_is_refused() -> None:
    set_precision(torch.nn.Linear(2, 2), "fp32")
    with pytest.raises(ValueError, match="precision: bf16 is not known to Linear"):
        set_precision(torch.nn.Linear(2, 2), "bf16")


def test_a_network_without_weights_is_refused() -> None:
    recipe = SimpleNamespace(network=torch.nn.Identity(), decay=lambda name, parameter: True)
    with pytest.raises(ValueError, match="Identity has no trainable parameters"):
        build_optimizer(recipe, TrainingConfig(**BASE))
