"""Sixteen bits inside residual blocks: biases summed in fp32, recomputation, what is refused."""

import pytest
import torch
from torch import Tensor, nn

from model_zoo.training.precision import (
    TYPES,
    Linear,
    Norm,
    Residual,
    check_device,
    residual_blocks,
    set_precision,
    set_recompute,
)


def _into_bias(rows: Tensor) -> Tensor:
    """A bias's gradient when these gradients of the outputs come in."""
    layer = Linear(4, rows.shape[-1])
    layer(torch.zeros(*rows.shape[:-1], 4, dtype=rows.dtype)).backward(rows)
    assert layer.bias.grad is not None and layer.bias.grad.dtype == torch.float32
    return layer.bias.grad


def test_a_bias_s_gradient_may_be_more_than_fp16_holds() -> None:
    rows = torch.full((2, 1024, 3), 100.0, dtype=torch.float16)
    assert not rows.flatten(0, 1).sum(0).isfinite().any()
    assert _into_bias(rows).tolist() == [204800.0] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_bias_s_gradient_keeps_the_digits_of_fp32(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = (torch.rand(4096, 3, generator=draw) + 1).to(dtype)
    wanted = rows.double().sum(0)
    found = (_into_bias(rows) - wanted).abs().max() / wanted.max()
    assert found < 1e-6
    assert (rows.sum(0).double() - wanted).abs().max() / wanted.max() > 20 * found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_product_in_16_bits_has_the_gradients_of_one_in_fp32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, exact = Linear(8, 6), nn.Linear(8, 6)
    exact.load_state_dict(layer.state_dict())
    x, into = torch.randn(2, 5, 8), torch.randn(2, 5, 6)
    narrow, wide = x.to(dtype).requires_grad_(), x.clone().requires_grad_()
    y = layer(narrow)
    assert y.dtype == dtype
    y.backward(into.to(dtype))
    exact(wide).backward(into)
    precision = 4 * torch.finfo(dtype).eps
    pairs = [(narrow, wide), (layer.weight, exact.weight), (layer.bias, exact.bias)]
    for one, other in pairs:
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=precision, atol=precision * 3)
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Residual(nn.Sequential(Norm(8), Linear(8, 8), nn.GELU())) for _ in range(3)]
    return nn.Sequential(nn.Linear(8, 8), *blocks)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("scaled", [False, True])
def test_recomputing_gives_the_same_gradients_to_the_bit(precision: str, scaled: bool) -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for recompute in (False, True):
        network = _network()
        set_precision(network, precision)  # type: ignore[arg-type]
        set_recompute(network, recompute)
        for block in residual_blocks(network).values():
            block.scale = torch.tensor(100.0) if scaled else None
        network(x).square().mean().backward()
        found.append([p.grad for p in network.parameters()])
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


def test_a_block_that_begins_the_network_learns_when_it_is_recomputed() -> None:
    block = _network()[1]
    block.recompute = True
    block(torch.randn(5, 8)).square().mean().requires_grad_().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_recomputing_keeps_less_for_the_backward_pass() -> None:
    kept = []
    for recompute in (False, True):
        network = _network()
        set_recompute(network, recompute)
        numbers: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, numbers=numbers: numbers.append(x.numel()) or x, lambda x: x
        ):
            network(torch.randn(5, 8))
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_block_computes_in_its_type_over_an_fp32_path(precision: str) -> None:
    network = _network()
    set_precision(network, precision)  # type: ignore[arg-type]
    x = 1 + torch.randn(5, 8) * 1e-6  # what 16 bits would lose
    types = []
    hook = network[1].branch[1].register_forward_hook(lambda m, i, o: types.append(o.dtype))
    y = network[1](x)
    hook.remove()
    assert types == [TYPES[precision]] and y.dtype == torch.float32
    branch = network[1].branch(x)
    torch.testing.assert_close(y - branch, x, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(network[1](x), y)


def test_a_precision_that_a_network_does_not_know_is_refused() -> None:
    set_precision(nn.Linear(2, 2), "fp32")
    with pytest.raises(ValueError, match="precision: bf16 is not known to Linear"):
        set_precision(nn.Linear(2, 2), "bf16")
    set_recompute(nn.Linear(2, 2), False)
    with pytest.raises(ValueError, match="recompute: True is not known to Linear"):
        set_recompute(nn.Linear(2, 2), True)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cpu_has_every_precision(precision: str) -> None:
    check_device(precision, torch.device("cpu"))  # type: ignore[arg-type]
