"""The image tokenizer's training: its rate, the GPUs that have a picture, and their memory."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from model_zoo.dvae import DVAEConfig
from model_zoo.dvae_size import dvae_size
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import Section
from tasks.costs.hardware import Hardware
from tasks.costs.memory import ALL
from tasks.costs.tokenizer import tokenizer_memory, tokenizer_training

RELEASED = dvae_size(DVAEConfig())


def _config(**changes: Any) -> TrainingConfig:
    values = {"steps": 1000, "batch_size": 512, "learning_rate": 1e-4, "ema": 0.999, **changes}
    return TrainingConfig.model_validate(values)


def _training(hardware: Hardware, **changes: Any) -> Section:
    return tokenizer_training(RELEASED, _config(**changes), hardware, utilisation=0.5)


def _memory(hardware: Hardware, **changes: Any) -> Section:
    return tokenizer_memory(RELEASED, _config(**changes), hardware)


@pytest.mark.parametrize(
    ("kind", "rate"), [("v100_16gb", 15.7e12), ("a100_80gb", 156e12), ("h100", 494e12)]
)
def test_it_runs_at_the_rate_of_fp32_convolutions(kind: str, rate: float) -> None:
    found = _training(Hardware(kind, 2, 8, price=3.0))
    seconds = 3 * RELEASED.flops * 512 / (16 * rate * 0.5)
    assert found.value("a step takes") == pytest.approx(seconds)
    assert found.value("the run") == pytest.approx(1000 * seconds)
    assert found.value("the run, cost") == pytest.approx(1000 * seconds * 16 / 3600 * 3)


def test_fp32_convolutions_are_left_to_tf32_where_there_is_that() -> None:
    importlib.import_module("model_zoo.training.worker")
    assert torch.backends.cudnn.allow_tf32


def test_gpus_without_a_picture_stand_idle() -> None:
    many, enough = (_training(Hardware("v100_16gb", machines, 8)) for machines in (128, 64))
    assert many.value("GPUs at work") == 512
    assert many.value("the run") == enough.value("the run")
    assert many.value("the run, cost") == enough.value("the run, cost")
    (said,) = (one.how for one in many.figures if one.name == "GPUs at work")
    assert said.startswith("1 pictures each; 512 stand idle")
    memory = _memory(Hardware("v100_16gb", 128, 8))
    assert memory.value("activations") == RELEASED.activations


@pytest.mark.parametrize(
    ("machines", "gpus", "batch", "busy"),
    [(1, 8, 512, 8), (3, 8, 512, 16), (2, 4, 12, 4), (2, 8, 12, 6), (4, 8, 1, 1)],
)
def test_a_batch_goes_to_as_many_gpus_as_it_divides_among(
    machines: int, gpus: int, batch: int, busy: int
) -> None:
    found = Hardware(machines=machines, gpus=gpus).busy(batch)
    assert found.all == busy
    assert found.share_of(batch) * busy == batch


def test_pictures_of_one_pass_must_fit_a_gpu() -> None:
    gpus = Hardware("v100_16gb", 1, 8)
    whole = _memory(gpus)
    assert whole.value("activations") == 64 * RELEASED.activations > 1e11
    assert whole.verdict.startswith("does not fit")
    assert whole.verdict.endswith("declare `micro_batch: 4`")
    four = _memory(gpus, micro_batch=4)
    assert four.value("activations") == 4 * RELEASED.activations
    assert four.verdict.startswith("fits: 9.5 GB")
    lasting = 4 * RELEASED.parameters * (1 + 5 / 8)
    assert four.value(ALL) == lasting + 2e9 + 4 * (RELEASED.activations + RELEASED.passing)


def test_a_gpu_without_room_for_one_picture_is_said() -> None:
    large = dvae_size(DVAEConfig(resolution=1024))
    found = tokenizer_memory(large, _config(), Hardware("v100_16gb"))
    assert found.verdict.endswith("nor does one picture a pass")


def test_fsdp_gathers_it_whole() -> None:
    found = _memory(Hardware(), engine="fsdp", micro_batch=4)
    assert found.value("weights") == 4 * RELEASED.parameters / 8
    assert found.value("buffers") == 8 * RELEASED.parameters
