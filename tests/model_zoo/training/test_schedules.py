"""The learning rate by update, and halved at plateaus of the loss."""

import json
import math

import numpy as np
import pytest

from model_zoo.training.config import PlateauConfig, TrainingConfig
from model_zoo.training.schedules import Plateau, learning_rate

BASE = {"steps": 100, "batch_size": 4, "learning_rate": 2.0}


def test_cosine_rises_linearly_and_falls_along_half_a_cosine() -> None:
    config = TrainingConfig(**BASE, warmup=9, final_learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.2)
    wanted = [1 + (1 + math.cos(math.pi * i / 91)) / 2 for i in range(91)]
    np.testing.assert_allclose(rates[9:], wanted)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_others_stay_after_the_warm_up(schedule: str) -> None:
    config = TrainingConfig.model_validate({**BASE, "warmup": 3, "schedule": schedule})
    rates = [learning_rate(config, step) for step in range(6)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def _halved(plateau: Plateau, losses: list[float]) -> list[int]:
    """The losses, counted from 0, after which the rate was halved."""
    found = []
    for number, loss in enumerate(losses):
        before = plateau.factor
        plateau.look(loss)
        if plateau.factor < before:
            assert plateau.factor == before / 2
            found.append(number)
    return found


def test_the_rate_is_halved_after_as_many_updates_without_a_fall() -> None:
    config = PlateauConfig(patience=3, window=1, least=0.1, halvings=2)
    #          best  fall       too little: 3 in a row   fall  3 more          no third halving
    losses = [10.0, 8.0, 7.5, 7.3, 7.3, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]
    #     0    1    2    3    4: halved; 5: falls below 7.3 by a tenth; 8: halved
    assert _halved(Plateau(config), losses) == [4, 8]


def test_a_rise_does_not_reset_what_was_best() -> None:
    config = PlateauConfig(patience=3, window=1, least=0.0)
    assert _halved(Plateau(config), [5.0, 6.0, 5.5, 5.2]) == [3]
    assert _halved(Plateau(config), [5.0, 6.0, 4.9, 5.2, 5.1]) == []


def test_a_falling_loss_is_never_a_plateau() -> None:
    plateau = Plateau(PlateauConfig(patience=5, window=10, least=1e-3))
    assert _halved(plateau, [10 * 0.99**n for n in range(300)]) == []
    assert plateau.factor == 1


def test_the_loss_is_smoothed_over_the_window() -> None:
    plateau = Plateau(PlateauConfig(window=4))
    losses = np.random.default_rng(0).random(20).tolist()
    smoothed = []
    for loss in losses:
        plateau.look(loss)
        smoothed.append(plateau.smoothed)
    np.testing.assert_allclose(smoothed[:4], [np.mean(losses[: n + 1]) for n in range(4)])
    wanted = smoothed[3]
    for loss, found in zip(losses[4:], smoothed[4:], strict=True):
        wanted = 0.75 * wanted + 0.25 * loss
        assert found == pytest.approx(wanted)


def test_noise_around_a_falling_loss_is_no_plateau_where_the_window_is_wide() -> None:
    draw = np.random.default_rng(0)
    losses = [5 * 0.995**n + draw.normal(0, 0.5) for n in range(400)]
    narrow = Plateau(PlateauConfig(patience=20, window=1))
    wide = Plateau(PlateauConfig(patience=20, window=100))
    assert _halved(narrow, losses)
    assert not _halved(wide, losses)


def test_a_plateau_goes_on_exactly_where_it_was() -> None:
    config = PlateauConfig(patience=4, window=3, least=0.01)
    losses = [1.0 + 1 / (1 + n) + 0.1 * (n % 3) for n in range(60)]
    whole = Plateau(config)
    halved = _halved(whole, losses)
    assert len(halved) >= 3
    for stop in (1, halved[0], halved[0] + 2, 59):
        first, second = Plateau(config), Plateau(config)
        _halved(first, losses[:stop])
        second.restore(json.loads(json.dumps(first.state())))  # as a checkpoint has it
        _halved(second, losses[stop:])
        assert second == whole
