"""Layers of a transformer that every network over caption tokens and image codes is made of.

Layer norm comes first in a block; matrices compute in the block's type over an identity path in 32
bits (`model_zoo.training.precision`). What a position may look at is the network's own matter: it
gives the function that attends.

Shapes: B samples, T positions, D width, E = D / heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.training.precision import Linear, Norm, Residual

GPT2_STD = 0.02

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries, keys and values, each [B, heads, T, E], under some mask."""


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(width)
        self.qkv = Linear(width, 3 * width, parts=3)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        q, k, v = self.project(x)
        if q.device.type == "cpu":
            # The backward pass in bf16 is three times slower there than in fp32 (106 and 36 ms).
            return self.merge(attend(q.float(), k.float(), v.float()).to(q.dtype))
        return self.merge(attend(q, k, v))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, T, D / heads]."""
        batch, length, width = x.shape
        split = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, heads: Tensor) -> Tensor:
        """[B, heads, T, D / heads] to [B, T, D], through the output matrix."""
        return self.out(heads.transpose(1, 2).flatten(2))


class Feedforward(nn.Module):
    """The position-wise half of a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.expand = Linear(width, 4 * width)
        self.out = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.out(F.gelu(self.expand(self.norm(x))))


class Layer(nn.Module):
    """Two residual blocks: attention and feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention: Residual[Attention] = Residual(Attention(width, heads))
        self.feedforward: Residual[Feedforward] = Residual(Feedforward(width))

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.feedforward(self.attention(x, attend))


def initialise(network: nn.Module, layers: Sequence[Layer], embedding_std: float) -> None:
    """Draw all weights of a network: matrices with std 1/sqrt(fan_in), embeddings as told."""

    def draw(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            draw_embedding(module.weight, embedding_std)

    network.apply(draw)
    for layer in layers:
        # As GPT-2: the sum of all branches has the variance of one.
        layer.attention.branch.out.weight.data.div_((2 * len(layers)) ** 0.5)
        layer.feedforward.branch.out.weight.data.div_((2 * len(layers)) ** 0.5)


def draw_embedding(weight: Tensor, std: float) -> None:
    """The same draw at any std, to its scale."""
    nn.init.normal_(weight, std=GPT2_STD)
    weight.data.mul_(std / GPT2_STD)
