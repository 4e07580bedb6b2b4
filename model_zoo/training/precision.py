"""Residual blocks that compute in 16 bits over a 32-bit identity path (DALL-E, appendix D).

Weights, gains, biases, embeddings, logits and all that optimiser and checkpoints hold stay fp32;
the matrix products inside a block run in the block's type. A network opts in by building its blocks
from `Residual`, `Norm` and `Linear`; the training system then sets the type.

In fp16 every block has a gradient scale of its own: the gradient is multiplied by it as it enters
the block and divided by it as it leaves into the identity path, where what is not finite becomes
zero, so that one block's overflow does not reach the others. Gradients of the block's parameters
are left scaled; `model_zoo.training.scales` divides them and adapts the scales.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from model_zoo.training.config import Precision

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Branch = TypeVar("Branch", bound=nn.Module)


class Linear(nn.Linear):
    """fp32 weights, the product in the input's type, the bias's gradient summed in fp32.

    `parts` says that the matrix is so many of one shape, one below the other (queries, keys and
    values, say); only the compression of gradients looks at it.
    """

    def __init__(self, inputs: int, outputs: int, parts: int = 1) -> None:
        super().__init__(inputs, outputs)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """x W' + b."""
        if x.dtype == torch.float32:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = _Product.apply(x, self.weight, self.bias)
        return product


class _Product(torch.autograd.Function):
    """A product in 16 bits whose bias has an fp32 gradient, summed in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        narrow = weight.to(x.dtype)
        ctx.save_for_backward(x, narrow)
        return F.linear(x, narrow, bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, narrow = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        into_weight = (rows.mT @ x.flatten(0, -2)).float()
        return gradients[0] @ narrow, into_weight, rows.sum(0, dtype=torch.float32)


class Norm(nn.LayerNorm):
    """Layer norm in fp32, its output in the type of the block that it opens."""

    out = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return super().forward(x).to(self.out)


class Residual(nn.Module, Generic[Branch]):
    """x + branch(x), where branch begins with a `Norm` and runs in `dtype`; x stays as it is.

    A branch draws no random numbers: recomputed, it would draw others.
    """

    branch: Branch
    scale: Tensor | None

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch
        self.recompute = False
        """Keep only the block's input, and compute the rest again in the backward pass."""
        self.register_buffer("scale", None, persistent=False)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        """The block's output; what follows x goes to the branch as it is."""
        if self.scale is None or not torch.is_grad_enabled():
            return x + self._run(x, *rest)
        # A copy, since autograd keeps it and the scale changes before the next forward pass.
        scale = self.scale.clone()
        inside: Tensor = _Enter.apply(x, scale)
        branch: Tensor = _Leave.apply(self._run(inside, *rest), scale)
        return x + branch

    def _run(self, x: Tensor, *rest: Any) -> Tensor:
        if not self.recompute or not torch.is_grad_enabled():
            return self.branch(x, *rest)
        # Reentrant: DeepSpeed's hooks gather sharded weights for the second forward pass only so;
        # but that needs an input with a gradient, which a network's first block may lack.
        result: Tensor = checkpoint(
            self.branch, x, *rest, use_reentrant=x.requires_grad, preserve_rng_state=False
        )
        return result

    def set_type(self, dtype: torch.dtype) -> None:
        """Compute in this type from now on."""
        for module in self.branch.modules():
            if isinstance(module, Norm):
                module.out = dtype


class _Enter(torch.autograd.Function):
    """Where the gradient leaves a block: divided by the scale, zero where it is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return torch.nan_to_num(gradients[0] / scale, nan=0.0, posinf=0.0, neginf=0.0), None


class _Leave(torch.autograd.Function):
    """Where the gradient comes into a block: multiplied by the scale, and in the block's type."""

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        ctx.dtype = y.dtype  # type: ignore[attr-defined]
        return y.float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return (gradients[0] * scale).to(ctx.dtype), None


def residual_blocks(network: nn.Module) -> dict[str, Residual[Any]]:
    """The residual blocks of a network by name, in the order of their definition."""
    return {name: one for name, one in network.named_modules() if isinstance(one, Residual)}


def set_precision(network: nn.Module, precision: Precision) -> None:
    """Let every residual block of a network compute in a precision.

    Raises:
        ValueError: if another precision than fp32 is asked of a network without such blocks.
    """
    blocks = _blocks(network, "precision", precision, precision != "fp32")
    for block in blocks:
        block.set_type(TYPES[precision])


def set_recompute(network: nn.Module, recompute: bool) -> None:
    """Let every residual block keep its input only, or all that the backward pass wants.

    Raises:
        ValueError: if it is asked of a network without such blocks.
    """
    for block in _blocks(network, "recompute", recompute, recompute):
        block.recompute = recompute


def check_device(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ValueError: saying which it has.
    """
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"precision: {name} has no bf16; declare fp16 (with scales) or fp32")


def _blocks(network: nn.Module, field: str, value: object, needed: bool) -> list[Residual[Any]]:
    blocks = list(residual_blocks(network).values())
    if needed and not blocks:
        name = type(network).__name__
        raise ValueError(f"{field}: {value} is not known to {name}, which has no residual blocks")
    return blocks
