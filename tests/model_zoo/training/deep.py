"""A deep stack of residual blocks whose true gradients span 2^-5 to 2^-40, in fp16 on any device.

Each branch ends with a gain of its own (LayerScale, arXiv 2103.17239), from 1 in the first block to
2^-35 in the last; the gradient that comes into a branch is as much smaller. Tests and
`tests/benchmarks/bench_scales.py` share it.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.training.config import Precision
from model_zoo.training.precision import Linear, Norm, Residual, residual_blocks, set_precision
from model_zoo.training.scales import BACKOFF, LEAST, MOST, Scales

WIDTH, TOKENS, SAMPLES, RANGE = 32, 64, 64, 35.0

Gradients = dict[str, Tensor]
"""Of all parameters of each block, flat, by block."""


class Branch(nn.Module):
    """Norm, two matrices, and a gain in fp32."""

    gain: Tensor

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.norm, self.expand = Norm(WIDTH), Linear(WIDTH, 2 * WIDTH)
        self.out = Linear(2 * WIDTH, WIDTH)
        self.register_buffer("gain", torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] to [B, D]."""
        return self.out(F.gelu(self.expand(self.norm(x)))).float() * self.gain


class Stack(nn.Module):
    """Tokens in, the next ones out, and nothing but residual blocks between."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        gains = [2.0 ** (-RANGE * number / (blocks - 1)) for number in range(blocks)]
        self.blocks = nn.Sequential(*(Residual(Branch(gain)) for gain in gains))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, tokens]."""
        return cast(Tensor, self.head(self.norm(self.blocks(self.embedding(tokens)))))


class Deep:
    """The gradients of one batch in several ways."""

    def __init__(self, blocks: int) -> None:
        draw = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(0, TOKENS, (SAMPLES,), generator=draw)
        self.next = torch.randperm(TOKENS, generator=draw)[self.tokens]
        self.blocks = blocks

    def true(self) -> Gradients:
        """In fp32."""
        return self._gradients(self._network("fp32"), 1.0)

    def single(self, scale: float) -> Gradients:
        """In fp16, the loss multiplied by one scale for all blocks."""
        found = self._gradients(self._network("fp16"), scale)
        return {name: gradient / scale for name, gradient in found.items()}

    def best_single(self) -> tuple[float, Gradients]:
        """Of the single scales 2^0 to 2^24 that make no block overflow, that of least error."""
        found = [(2.0**k, self.single(2.0**k)) for k in range(25)]
        finite = [(scale, some) for scale, some in found if _finite(some)]
        true = self.true()
        return min(finite, key=lambda one: mean_error(errors(one[1], true)))

    def by_block(self) -> tuple[dict[str, float], Gradients]:
        """With the training system's scales, each where many updates take it: just below what
        overflows, or at the most that is allowed; and the gradients that they then give."""
        network = self._network("fp16")
        scales = Scales(network)
        for one in scales.scales.values():
            one.value = MOST
        while True:
            scales.restore(scales.state())
            found = self._gradients(network, 1.0)
            overflowed = [name for name in found if not found[name].isfinite().all()]
            if not overflowed:
                break
            for name in overflowed:
                assert scales.scales[name].value > LEAST
                scales.scales[name].value *= BACKOFF
        used = {name: one.value for name, one in scales.scales.items()}
        scales.unscale({name: [gradient] for name, gradient in found.items()}, set())
        return used, found

    def _network(self, precision: Precision) -> Stack:
        torch.manual_seed(0)
        network = Stack(self.blocks)
        set_precision(network, precision)
        return network

    def _gradients(self, network: Stack, scale: float) -> Gradients:
        network.zero_grad()
        (F.cross_entropy(network(self.tokens), self.next) * scale).backward()
        return {
            name: torch.cat([cast(Tensor, p.grad).flatten() for p in block.parameters()])
            for name, block in residual_blocks(network).items()
        }


def errors(found: Gradients, true: Gradients) -> list[float]:
    """Each block's error relative to its own true gradient, from the first block to the last."""
    return [float((found[name] - true[name]).norm() / true[name].norm()) for name in true]


def mean_error(by_block: list[float]) -> float:
    """Root of the mean of squares."""
    return math.sqrt(sum(error**2 for error in by_block) / len(by_block))


def largest(gradients: Gradients) -> list[float]:
    """The binary logarithm of each block's largest gradient."""
    return [math.log2(float(gradient.abs().max())) for gradient in gradients.values()]


def _finite(gradients: Gradients) -> bool:
    return all(bool(gradient.isfinite().all()) for gradient in gradients.values())
