"""Residual blocks that compute in 16 bits over a 32-bit identity path (DALL-E, appendix D).

Weights, gains, biases, embeddings, logits and all that optimiser and checkpoints hold stay fp32;
the matrix products inside a block run in the block's type. A network opts in by building its blocks
from `Residual`, `Norm` and `Linear`; the training system then sets the type.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


Branch = TypeVar("Branch", bound=nn.Module)


class Linear(nn.Linear):
    """fp32 weights, the product in the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.LayerNorm):
    """Layer norm in fp32, its output in the type of the block that it opens."""

    out = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return super().forward(x).to(self.out)


class Residual(nn.Module, Generic[Branch]):
    """x + branch(x), where branch begins with a `Norm` and runs in `dtype`; x stays as it is."""

    branch: Branch

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """The block's output; what follows x goes to the branch as it is."""
        return x + self.branch(x, *rest)

    def set_type(self, dtype: torch.dtype) -> None:
        """Compute in this type from now on."""
        for module in self.branch.modules():
            if isinstance(module, Norm):
                module.out = dtype


def set_precision(network: nn.Module, precision: Literal["fp32", "bf16"]) -> None:
    """Let every residual block of a network compute in a precision.

    Raises:
        ValueError: if another precision than fp32 is asked of a network without such blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Residual)]
    if precision != "fp32" and not blocks:
        name = type(network).__name__
        raise ValueError(f"precision: {precision} is not known to {name}, which computes in fp32")
    for block in blocks:
        block.set_type(TYPES[precision])
