"""Gradient scales: the rule by which each moves, and what a block's overflow does to the others."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.training.config import Precision, TrainingConfig
from model_zoo.training.engines.plain import PlainEngine
from model_zoo.training.fragments import Blocks
from model_zoo.training.moments import MOMENTS
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.precision import Linear, Norm, Residual, residual_blocks, set_precision
from model_zoo.training.processes import Processes
from model_zoo.training.reduction import OUTSIDE
from model_zoo.training.scales import Scale, Scales
from model_zoo.training.update import Updated, Updater

CONFIG: dict[str, Any] = {"steps": 10, "batch_size": 4, "learning_rate": 1e-2, "weight_decay": 0.1}
WIDTH = 16


def _simulated(overflows: list[bool], start: float) -> list[float]:
    """The rule in the paper's words, in binary logarithms, one update after the other."""
    exponent, divided, found = np.log2(start), -1000, []
    for update, overflowed in enumerate(overflows):
        if not overflowed:
            exponent += 1 / 1000
        elif update - divided > 125:
            exponent -= 0.5
            divided = update
        exponent = min(max(exponent, 7), 24)
        found.append(2**exponent)
    return found


@pytest.mark.parametrize("chance", [0.0, 0.001, 0.05, 1.0])
@pytest.mark.parametrize("start", [2.0**13, 2.0**7, 2.0**23.9])
def test_a_scale_moves_as_the_paper_says(chance: float, start: float) -> None:
    draw = np.random.default_rng(int(1000 * chance))
    overflows = [bool(one) for one in draw.random(3000) < chance]
    scale, found = Scale(start), []
    for overflowed in overflows:
        scale.adapt(overflowed)
        found.append(scale.value)
    np.testing.assert_allclose(found, _simulated(overflows, start), rtol=1e-9)


def test_a_scale_starts_at_two_to_the_thirteenth_and_stays_within_its_bounds() -> None:
    scale = Scale()
    assert scale.value == 2**13
    scale.adapt(True)
    assert scale.value == pytest.approx(2**12.5)  # also in the very first update
    for _ in range(13_000):
        scale.adapt(False)
    assert scale.value == 2**24
    for _ in range(126 * 40):
        scale.adapt(True)
    assert scale.value == 2**7


def test_no_second_division_within_125_updates() -> None:
    scale, divided, before = Scale(), [], 2.0**13
    for update in range(400):
        scale.adapt(True)
        if scale.value < before:
            divided.append(update)
        before = scale.value
    assert divided == [0, 126, 252, 378]


class _Spike(torch.autograd.Function):
    """Passes on, and makes the gradient infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.inf


class _Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.expand = Norm(WIDTH), Linear(WIDTH, 2 * WIDTH)
        self.out = Linear(2 * WIDTH, WIDTH)
        self.spike = self.cut = False

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach() if self.cut else x
        y = F.gelu(self.expand(self.norm(x)))
        return self.out(_Spike.apply(y) if self.spike else y)


class _Stack(nn.Module):
    """Four residual blocks between an embedding and an output matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(10, WIDTH)
        self.blocks = nn.Sequential(*(Residual(_Branch()) for _ in range(4)))
        self.head = nn.Linear(WIDTH, 10)

    def loss(self) -> Tensor:
        tokens = torch.arange(10)
        return F.cross_entropy(self.head(self.blocks(self.embedding(tokens))), tokens.flip(0))


class _Recipe:
    tokens = 1

    def __init__(self, precision: Precision) -> None:
        self.network = _Stack()
        set_precision(self.network, precision)

    def loss(self, batch: Any, step: int, generator: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.network.loss(), {}

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def _unscaled(network: _Stack, overflowed: set[str] | None = None) -> dict[str, Tensor]:
    """Gradients of the network in fp16, each block's scale another one."""
    scales = Scales(network)
    scales.restore({name: [2.0 ** (9 + 3 * n), 0] for n, name in enumerate(scales.scales)})
    network.loss().backward()
    by_block = {
        name: [p.grad for p in block.parameters() if p.grad is not None]
        for name, block in scales.blocks.items()
    }
    scales.unscale(by_block, overflowed or set())
    return _gradients(network)


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_in_fp16_are_those_in_fp32_up_to_its_precision(recompute: bool) -> None:
    exact, network = _Stack(), _Recipe("fp16").network
    for block in network.blocks:
        block.recompute = recompute
    exact.loss().backward()
    found = _unscaled(network)
    for name, wanted in _gradients(exact).items():
        assert found[name].dtype == torch.float32
        assert (found[name] - wanted).norm() < 3 * 2**-11 * wanted.norm(), name


def test_gains_and_biases_and_all_outside_of_blocks_stay_in_fp32() -> None:
    network = _Recipe("fp16").network
    seen: dict[str, torch.dtype] = {}

    def note(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: output.dtype})

    for name, module in network.named_modules():
        module.register_forward_hook(note(name))
    network.loss().backward()
    assert seen["embedding"] == seen["head"] == seen["blocks.2"] == torch.float32
    assert seen["blocks.2.branch.expand"] == seen["blocks.2.branch.norm"] == torch.float16
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_one_block_s_overflow_does_not_reach_the_others() -> None:
    cut, hit = _Recipe("fp16").network, _Recipe("fp16").network
    cut.blocks[2].branch.cut = True  # nothing comes through its branch
    hit.blocks[2].branch.spike = True
    wanted = _unscaled(cut)
    network = copy.deepcopy(hit)
    Scales(network)
    network.loss().backward()
    unsound = {n for n, g in _gradients(network).items() if not torch.isfinite(g).all()}
    assert unsound and all(name.startswith("blocks.2.") for name in unsound)
    assert "blocks.2.branch.out.weight" not in unsound  # it lies before the spike
    for name, gradient in _unscaled(hit, {"blocks.2"}).items():
        if name.startswith("blocks.2."):
            assert not gradient.any()
        else:
            assert gradient.any() and torch.equal(gradient, wanted[name])


def test_scales_are_divided_out_and_moved_block_by_block() -> None:
    network = _Stack()
    scales = Scales(network)
    gradients = {name: [torch.full((3,), 2.0**13)] for name in scales.scales}
    gradients["blocks.1"] = [torch.tensor([torch.nan, torch.inf, 1.0])]
    scales.unscale(gradients, {"blocks.1"})
    assert gradients["blocks.0"][0].tolist() == [1, 1, 1]
    assert gradients["blocks.1"][0].tolist() == [0, 0, 0]
    values = [one.value for one in scales.scales.values()]
    np.testing.assert_allclose(np.log2(values), [13.001, 12.5, 13.001, 13.001])
    told = [float(block.scale) for block in network.blocks]
    np.testing.assert_allclose(told, values, rtol=1e-7)


def test_blocks_one_by_one_are_unscaled_as_all_at_once() -> None:
    """As FSDP2's gradients are, while the backward pass goes on."""
    found, states = [], []
    for size in (1, 4):
        scales = Scales(_Stack())
        gradients = {name: [torch.full((3,), 2.0**13)] for name in scales.scales}
        names = sorted(gradients, reverse=True)
        for first in range(0, 4, size):
            some = {name: gradients[name] for name in names[first : first + size]}
            scales.unscale(some, {"blocks.1"} & some.keys())
        found.append({name: own[0].tolist() for name, own in gradients.items()})
        states.append(scales.state())
    assert found[0] == found[1]
    assert states[0] == states[1]


def test_scales_go_on_where_they_were() -> None:
    scales = Scales(_Stack())
    nothing: dict[str, list[Tensor]] = {name: [] for name in scales.scales}
    for update in range(7):
        scales.unscale(nothing, {"blocks.0"} if update == 3 else set())
    other = Scales(_Stack())
    other.restore(scales.state())
    assert other.scales == scales.scales
    for one in (scales, other):
        one.unscale(nothing, {"blocks.0", "blocks.2"})
    assert other.state() == scales.state()


def _update(updater: Updater, loss: torch.Tensor) -> Updated:
    updater.backward(loss, last=True)
    return updater.update(1e-2)


def test_an_update_leaves_out_the_blocks_that_were_hit_and_no_others() -> None:
    recipe, config = _Recipe("fp16"), TrainingConfig(**CONFIG, precision="fp16")
    network = recipe.network
    blocks = Blocks.find(network)
    with Processes() as processes:
        engine = PlainEngine(recipe, processes, 1, build_optimizer(recipe, config))  # type: ignore[arg-type]
        updater = Updater(engine, blocks, network, config, processes)
        _update(updater, network.loss())
        before = copy.deepcopy(network.state_dict())
        moments = copy.deepcopy(engine.optimizer.state_dict()["state"])
        network.blocks[1].branch.spike = True
        done = _update(updater, network.loss())
    assert done.skipped == {"blocks.1"}
    assert done.norms["blocks.1"] == 0 and done.norms["blocks.0"] > 0 and done.norms[OUTSIDE] > 0
    assert done.norm == pytest.approx(np.linalg.norm(list(done.norms.values())))
    after = engine.optimizer.state_dict()["state"]
    order = [p for group in engine.optimizer.param_groups for p in group["params"]]
    for name, parameter in network.named_parameters():
        number = next(n for n, p in enumerate(order) if p is parameter)
        same = [torch.equal(parameter, before[name])]
        same += [torch.equal(after[number][m], moments[number][m]) for m in MOMENTS]
        assert same == [name.startswith("blocks.1.")] * 3, name
    scales = updater.scales
    assert scales is not None
    assert scales.scales["blocks.1"].value < 2**13 < scales.scales["blocks.0"].value


def test_what_underflows_in_a_block_is_counted_where_that_is_wanted() -> None:
    recipe, config = _Recipe("fp16"), TrainingConfig(**CONFIG, precision="fp16")
    network = recipe.network
    with Processes() as processes:
        engine = PlainEngine(recipe, processes, 1, build_optimizer(recipe, config))  # type: ignore[arg-type]
        updater = Updater(engine, Blocks.find(network), network, config, processes)
        assert updater.scales is not None
        low = {name: [2.0**-20 if name == "blocks.2" else 2.0**13, 0] for name in updater.names[:4]}
        updater.scales.restore(low)
        other = copy.deepcopy(network)
        assert _update(updater, network.loss()).underflow == {}
        network.load_state_dict(other.state_dict())
        updater.scales.restore(low)
        updater.observe(True)
        found = _update(updater, network.loss()).underflow
    other.loss().backward()
    wanted = {}
    for name, block in residual_blocks(other).items():
        gradients = [p.grad.numpy().ravel() for p in block.parameters() if p.grad is not None]
        wanted[name] = np.mean(np.concatenate(gradients) == 0)
    assert found == pytest.approx(wanted)
    assert wanted["blocks.2"] > 0.5 > wanted["blocks.0"]


def test_an_overflow_outside_of_blocks_is_no_block_s() -> None:
    recipe, config = _Recipe("fp16"), TrainingConfig(**CONFIG, precision="fp16")
    network = recipe.network
    before = copy.deepcopy(network.state_dict())
    with Processes() as processes:
        engine = PlainEngine(recipe, processes, 1, build_optimizer(recipe, config))  # type: ignore[arg-type]
        updater = Updater(engine, Blocks.find(network), network, config, processes)
        done = _update(updater, network.loss() + network.head.bias.sum() * torch.inf)
    assert not np.isfinite(done.norm) and done.skipped == frozenset()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_other_precisions_have_no_scales() -> None:
    recipe, config = _Recipe("bf16"), TrainingConfig(**CONFIG, precision="bf16")
    with Processes() as processes:
        engine = PlainEngine(recipe, processes, 1, build_optimizer(recipe, config))  # type: ignore[arg-type]
        updater = Updater(engine, Blocks.find(recipe.network), recipe.network, config, processes)
    assert updater.scales is None
    assert all(block.scale is None for block in recipe.network.blocks)
