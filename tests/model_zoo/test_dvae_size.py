"""The closed form of the dVAE's size against the real network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.dvae import DVAE, DVAEConfig, dvae_loss
from model_zoo.dvae_size import dvae_size

CONFIGS: list[dict[str, Any]] = [
    {"resolution": 64, "width": 32, "multipliers": (1, 3), "blocks": 1, "decoder_width": 96},
    {"resolution": 48, "patch": 4, "vocabulary": 12, "width": 16, "multipliers": (1,),
     "decoder_width": 16, "stem_kernel": 1, "encoder_kernels": (3, 1)},
]  # fmt: skip


@pytest.mark.parametrize("values", [{}, *CONFIGS], ids=["released", "two groups", "patches"])
def test_parameters_are_those_of_the_dvae(values: dict[str, Any]) -> None:
    config = DVAEConfig.model_validate(values)
    with torch.device("meta"):
        network = DVAE(config)
    size = dvae_size(config)
    assert size.encoder == sum(p.numel() for p in network.encoder.parameters())
    assert size.decoder == sum(p.numel() for p in network.decoder.parameters())


@pytest.mark.parametrize("values", CONFIGS, ids=["two groups", "patches"])
def test_arithmetic_is_that_of_the_dvae(values: dict[str, Any]) -> None:
    config = DVAEConfig.model_validate(values)
    network, counter = DVAE(config), FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        logits = network.logits(torch.zeros(1, 3, config.resolution, config.resolution))
        network.decoder(logits)
    size = dvae_size(config)
    assert size.flops == counter.get_total_flops()
    assert size.grid == logits.shape[-1]


def test_the_released_dvae() -> None:
    size = dvae_size(DVAEConfig())
    assert (size.encoder, size.decoder) == (53_786_240, 43_829_766)
    assert size.shrinkage == 192


def _kept(config: DVAEConfig, pictures: int) -> int:
    """Bytes that autograd keeps for the backward pass of the loss, beside the parameters."""
    network = DVAE(config)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    side = config.resolution
    images = torch.zeros(pictures, 3, side, side, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss, _ = dvae_loss(network, images, 0, torch.Generator())
    del loss
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize(
    "values",
    [
        *CONFIGS,
        {"resolution": 64, "width": 32, "vocabulary": 512, "log_scale_floor": -5.0},
        {"resolution": 64},  # all widths of the released network
    ],
    ids=["two groups", "patches", "four groups", "released"],
)
def test_activations_are_what_autograd_keeps(values: dict[str, Any], pictures: int) -> None:
    config = DVAEConfig.model_validate(values)
    expected = pictures * dvae_size(config).activations
    # Beside them a few numbers a code: the mean over the batch, for its balance.
    assert _kept(config, pictures) == pytest.approx(expected, rel=1e-3, abs=12 * config.vocabulary)


def test_a_picture_of_the_released_dvae_takes_a_gigabyte_and_a_half() -> None:
    small, whole = (dvae_size(DVAEConfig(resolution=side)) for side in (64, 256))
    assert whole.activations == 16 * small.activations
    assert round(whole.activations / 1e9, 2) == 1.58


def test_the_backward_pass_has_less_than_two_of_the_largest_maps_beside_them() -> None:
    config = DVAEConfig(resolution=64, width=64, vocabulary=1024)
    network, pictures = DVAE(config), 8
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    images = torch.zeros(pictures, 3, 64, 64, dtype=torch.uint8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        loss, _ = dvae_loss(network, images, 0, torch.Generator())
        loss.backward()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    taken = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        taken += event.nbytes()
        most = max(most, taken)
    size = dvae_size(config)
    beside = most - pictures * size.activations
    assert 0.5 * pictures * size.passing < beside < pictures * size.passing
