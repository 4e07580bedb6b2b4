"""AdamW as DALL-E uses it: decoupled decay, the variance clipped, moments in fewer bits if wanted.

Every engine takes it, DeepSpeed as well, and it needs no compiler. A step goes over its parameters
in chunks, so that what it needs besides them is small also where one parameter is a whole shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from model_zoo.training.config import TrainingConfig
from model_zoo.training.moments import MOMENTS, Span, Storage, storage_of
from model_zoo.training.recipe import Recipe

_CHUNK = 1 << 24  # elements that one round of a step works on; a multiple of all blocks of storage


class AdamW(torch.optim.Optimizer):
    """Loshchilov and Hutter's AdamW (arXiv 1711.05101), computed in fp32.

    Attributes:
        skipped: spans of parameters whose weights and moments the next step must leave as they are.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        rate: float,
        betas: tuple[float, float],
        epsilon: float,
        variance_clip: float | None = None,
        moments: Literal["fp32", "bf16", "int8"] = "fp32",
    ) -> None:
        super().__init__(groups, {"lr": rate, "weight_decay": 0.0})
        self.betas, self.epsilon, self.variance_clip = betas, epsilon, variance_clip
        self.storage: Storage = storage_of(moments)
        self.skipped: dict[Tensor, list[Span]] = {}
        self._plain = moments == "fp32" and variance_clip is None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            for parameter in parameters:
                self.moments_of(parameter)["step"] += 1
            if self._plain and not self.skipped:
                self._update_at_once(parameters, group)
                continue
            for parameter in parameters:
                for span in _chunks(parameter.numel()):
                    self._update(parameter, self.moments_of(parameter), span, group)

    def moments_of(self, parameter: Tensor) -> dict[str, Any]:
        """A parameter's state: `step` and the two moments as they are stored."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            for name in MOMENTS:
                state[name] = self.storage.empty(name, parameter)
        return state

    def read(self, parameter: Tensor, name: str, span: Span) -> Tensor:
        """A span of a moment, flat and in fp32; a view of it where it is stored so."""
        return self.storage.read(name, self.moments_of(parameter)[name], span)

    def write(self, parameter: Tensor, name: str, span: Span, values: Tensor) -> None:
        """Set a span of a moment."""
        self.storage.write(name, self.moments_of(parameter)[name], span, values)

    def _update_at_once(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """torch's own kernel, which goes over each parameter once instead of ten times."""
        if not parameters:
            return
        states = [self.moments_of(one) for one in parameters]
        first, second = ([state[name] for state in states] for name in MOMENTS)
        steps = [torch.tensor(float(s["step"]), device=s[MOMENTS[0]].device) for s in states]
        torch._fused_adamw_(
            parameters, [cast(Tensor, one.grad) for one in parameters],
            first, second, [], steps,
            lr=group["lr"], beta1=self.betas[0], beta2=self.betas[1],
            weight_decay=group["weight_decay"], eps=self.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _update(
        self, parameter: Tensor, state: dict[str, Any], span: Span, group: dict[str, Any]
    ) -> None:
        assert parameter.grad is not None
        weight, gradient = (t.view(-1).narrow(0, *span) for t in (parameter, parameter.grad))
        first, second = (self.storage.read(name, state[name], span) for name in MOMENTS)
        kept = self._kept(parameter, span, weight, first, second)
        beta1, beta2 = self.betas
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if self.variance_clip is not None:
            second.clamp_(max=self.variance_clip)
        deviation = second.sqrt().div_((1 - beta2 ** state["step"]) ** 0.5).add_(self.epsilon)
        weight.addcdiv_(first, deviation, value=-group["lr"] / (1 - beta1 ** state["step"]))
        for place, copy in kept:
            place.copy_(copy)
        for name, values in zip(MOMENTS, (first, second), strict=True):
            self.storage.write(name, state[name], span, values)

    def _kept(self, parameter: Tensor, span: Span, *tensors: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(place, copy of it) of all that a step of this chunk must put back."""
        kept = []
        for offset, numel in self.skipped.get(parameter, ()):
            low, high = max(offset, span[0]), min(offset + numel, span[0] + span[1])
            if low < high:
                for tensor in tensors:
                    place = tensor[low - span[0] : high - span[0]]
                    kept.append((place, place.clone()))
        return kept


def _chunks(numel: int) -> Iterator[Span]:
    return ((start, min(_CHUNK, numel - start)) for start in range(0, numel, _CHUNK))


def parameter_groups(recipe: Recipe, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of a recipe's network, by whether weight decay applies.

    Raises:
        ValueError: if the network has nothing to train.
    """
    named = [(name, p) for name, p in recipe.network.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError(f"network: {type(recipe.network).__name__} has no trainable parameters")
    decaying: list[nn.Parameter] = [p for name, p in named if recipe.decay(name, p)]
    others: list[nn.Parameter] = [p for name, p in named if not recipe.decay(name, p)]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(recipe: Recipe, config: TrainingConfig) -> AdamW:
    """The optimiser of a training."""
    return AdamW(
        parameter_groups(recipe, config.weight_decay),
        rate=config.learning_rate,
        betas=config.betas,
        epsilon=config.epsilon,
        variance_clip=config.variance_clip,
        moments=config.moments,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
