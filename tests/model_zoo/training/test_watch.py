"""What is seen of a training, and what is said where it went wrong."""

import math
import re
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model_zoo.dalle import DalleConfig, DalleRecipe
from model_zoo.sizes import dalle_size
from model_zoo.training.precision import Norm, Residual, set_precision, set_recompute
from model_zoo.training.processes import Processes
from model_zoo.training.scales import Scales
from model_zoo.training.update import OUTSIDE, Updated
from model_zoo.training.watch import (
    Watch,
    counting_flops,
    find_unsound,
    matrix_rate,
    memory,
    name_samples,
    name_unsound,
)

SMALL = DalleConfig(
    text_vocabulary=20, text_length=16, image_vocabulary=8, grid_height=8, grid_width=8,
    width=64, heads=4, layers=4, conv_kernel=3,
)  # fmt: skip


class _Spoil(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


def _network(*values: float) -> nn.Sequential:
    """A block a value, by which its branch is multiplied."""
    return nn.Sequential(*(Residual(nn.Sequential(Norm(4), _Spoil(value))) for value in values))


def test_the_first_block_that_is_not_finite_is_named(processes: Processes) -> None:
    x = torch.randn(2, 4)
    for values, wanted in (
        ((1.0, math.inf, 1.0, math.nan), "the first block with an output that is not finite is 1"),
        ((math.nan, 1.0), "the first block with an output that is not finite is 0"),
        ((1.0, 1.0), "the output of every block is finite"),
    ):
        network = _network(*values)
        assert find_unsound(network, lambda network=network: network(x), processes) == wanted
        assert not any(block._forward_hooks for block in network)


def test_without_residual_blocks_the_first_layer_is_named(processes: Processes) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), _Spoil(math.inf)), nn.ReLU())
    x = torch.ones(2, 4)
    found = find_unsound(network, lambda: network(x), processes)
    assert found == "the first layer with an output that is not finite is 1.1"
    network[1] = nn.ReLU()
    assert (
        find_unsound(network, lambda: network(x), processes)
        == "the output of every layer is finite"
    )


def test_a_forward_pass_that_fails_leaves_no_hooks(processes: Processes) -> None:
    network = _network(1.0)

    def forward() -> object:
        raise RuntimeError("no such batch")

    with pytest.raises(RuntimeError, match="no such batch"):
        find_unsound(network, forward, processes)
    assert not network[0]._forward_hooks


def test_blocks_whose_gradient_is_not_finite_are_named_up_to_four() -> None:
    norms = {"a": 1.0, "b": math.inf, "c": math.nan}
    assert name_unsound(norms) == "gradients are not finite in b, c"
    many = {f"block {n}": math.nan for n in range(7)}
    words = "gradients are not finite in block 0, block 1, block 2, block 3 and 3 more"
    assert name_unsound(many) == words


class _Named:
    def name(self, number: int) -> str:
        return f"pair-{number}"


def test_samples_are_called_as_their_dataset_calls_them_or_by_number() -> None:
    parts = [(0, np.array([7, 3])), (1, np.array([5, 1, 2]))]
    assert name_samples(object(), parts) == "samples 7, 3, 5, 1 and 1 more"
    assert name_samples(_Named(), parts[:1]) == "samples pair-7, pair-3"


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arithmetic_is_about_six_times_parameters_times_tokens(
    precision: str, recompute: bool
) -> None:
    """Of the parameters that multiply. Attention comes to that (on a CPU the counter sees it only
    in its plain form; here it looks at all positions and the masks do not count, an eighth of the
    whole), and the output matrices see only their own part of the positions."""
    recipe = DalleRecipe(SMALL)
    set_precision(recipe.network, precision)  # type: ignore[arg-type]
    set_recompute(recipe.network, recompute)
    samples, watch = 2, Watch()
    batch = {"tokens": torch.zeros(samples, 16).long(), "codes": torch.zeros(samples, 64).long()}
    with counting_flops(watch), sdpa_kernel(SDPBackend.MATH):
        recipe.loss(batch, 0, torch.Generator())
    size = dalle_size(SMALL)
    tokens = samples * size.tokens
    assert watch.flops == pytest.approx(6 * size.matrices * tokens, rel=0.3)
    full = 3 * 4 * size.width * size.tokens**2 * size.layers * samples
    exact = 3 * samples * (size.matrix_flops + size.logit_flops) + full
    assert watch.flops == pytest.approx(exact, rel=1e-3)


def test_memory_grows_with_what_is_held() -> None:
    before = memory()
    held = torch.ones(30_000_000)
    assert 50_000_000 < before < 100_000_000_000
    assert memory() >= before
    assert held.nbytes < memory()


def test_the_rate_of_matrix_products_is_about_what_one_of_them_has() -> None:
    a, best = torch.randn(1024, 1024), math.inf
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    measured = matrix_rate(torch.device("cpu"), "fp32")
    assert 0.1 < measured * best / (2 * 1024**3) < 10  # machines are noisy


def _updated(skipped: frozenset[str] = frozenset(), sent: int = 0) -> Updated:
    return Updated(2.0, {"blocks.0": 1.0, OUTSIDE: 3.0}, skipped, sent, 0.25)


def test_metrics_are_of_the_updates_since_the_last_line() -> None:
    network = _network(1.0, 1.0)
    scales = Scales(network)
    watch = Watch(flops=1e6, peak=1e9)
    watch.since -= 10.0
    for skipped in ({"0"}, {"0", "1"}, set()):
        watch.count(0.5, _updated(frozenset(skipped), 100))
    found = watch.metrics(_updated(), scales, machines=2)
    assert found["loader_share"] == pytest.approx(0.15, rel=0.01)
    assert found["exchange_share"] == pytest.approx(0.075, rel=0.01)
    assert found["exchange_bytes"] == 100
    assert found["utilisation"] == pytest.approx(3e-4, rel=0.01)
    assert found["norm/blocks.0"] == 1.0 and found[f"norm/{OUTSIDE}"] == 3.0
    assert found["scale/0"] == found["scale/1"] == 2**13
    assert (found["skipped/0"], found["skipped/1"]) == (2, 1)
    watch.since -= 10.0
    watch.count(0.0, _updated())
    later = watch.metrics(_updated(), scales, machines=2)
    assert later["loader_share"] == 0 and later["exchange_bytes"] == 0
    assert later["utilisation"] == pytest.approx(1e-4, rel=0.01)
    assert later["skipped/0"] == 2  # skips are counted from the beginning


def test_one_machine_exchanges_nothing_and_fp32_has_no_scales() -> None:
    watch = Watch()
    watch.count(0.0, _updated())
    found = watch.metrics(_updated(), None, machines=1)
    assert not any(re.match("exchange|scale|skipped|utilisation", name) for name in found)
    assert found["memory_gb"] > 0
