"""One update of the weights, in the same steps whatever the engine (DALL-E, appendices D and E).

Backward; take the blocks' gradient scales out of the gradients, all processes agreeing on the
blocks that overflowed; exchange with other machines; clip by the norm of what came of that; step,
leaving the blocks that overflowed untouched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model_zoo.training.config import CompressionConfig, TrainingConfig
from model_zoo.training.engine import Engine
from model_zoo.training.fragments import Blocks
from model_zoo.training.optimizer import set_learning_rate
from model_zoo.training.powersgd import Exchange, Shape, choose_rank
from model_zoo.training.processes import Processes
from model_zoo.training.reduction import OUTSIDE, Reduction
from model_zoo.training.scales import Scales


@dataclass(frozen=True)
class Updated:
    """What an update did.

    Attributes:
        norm: of the whole gradient, before it was clipped.
        norms: of the gradient by residual block, those outside of any together.
        skipped: the blocks that were left out.
        sent: bytes that this process exchanged with other machines.
        waited: seconds that the update waited for the exchange.
        underflow: the share of each block's gradient that is zero in fp16, of observed updates.
    """

    norm: float
    norms: Mapping[str, float]
    skipped: frozenset[str]
    sent: int
    waited: float
    underflow: Mapping[str, float] = field(default_factory=dict)


class Updater:
    """Applies gradients to the weights that an engine holds."""

    def __init__(
        self, engine: Engine, blocks: Blocks, network: nn.Module, config: TrainingConfig,
        processes: Processes,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.processes = processes
        self.clip_norm = config.clip_norm or math.inf
        self.blocks = blocks
        self.scales = Scales(network) if config.precision == "fp16" else None
        self.exchange = self._build_exchange(config)
        self.reduction = Reduction(engine, blocks, self.exchange, self.scales, processes)
        self.names = self.reduction.names
        self._of = torch.tensor(
            [self.names.index(blocks.of[f.name] or OUTSIDE) for f in engine.fragments],
            dtype=torch.int64, device=processes.device,
        )  # fmt: skip

    def observe(self, observing: bool) -> None:
        """Whether the updates from now on count what underflows; all processes say the same."""
        self.reduction.observing = observing

    def backward(self, loss: Tensor, last: bool) -> None:
        """One of the passes of an update, or the last of them."""
        self.reduction.backward(loss, last)

    def update(self, rate: float) -> Updated:
        """One update; nothing is changed where the norm is not finite (but that is returned)."""
        gradients, skipped = self.reduction.finish()
        squares = self._squares(gradients)
        norm = math.sqrt(float(squares.sum()))
        if math.isfinite(norm):
            self._step(gradients, norm, rate, skipped)
        norms = dict(zip(self.names, squares.sqrt().tolist(), strict=True))
        sent = self.exchange.traffic.take()
        reduction = self.reduction
        return Updated(norm, norms, skipped, sent, reduction.waited, dict(reduction.underflow))

    def _own_squares(self, gradients: Sequence[Tensor]) -> Tensor:
        """Sums of squares by block of what this process holds, float64."""
        zeros = torch.zeros(len(self.names), dtype=torch.float64, device=self.processes.device)
        if not gradients:
            return zeros
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        return zeros.index_add_(0, self._of, norms.to(self.processes.device).double() ** 2)

    def _squares(self, gradients: Sequence[Tensor]) -> Tensor:
        """Sums of squares by block of the whole gradient, the same in all processes."""
        own = self._own_squares(gradients)
        if not self.engine.sharded or self.processes.per_machine == 1:
            return own
        return self.processes.total(own, self.processes.machine_group)

    def _step(
        self, gradients: Sequence[Tensor], norm: float, rate: float, skipped: frozenset[str]
    ) -> None:
        if norm > self.clip_norm:
            torch._foreach_mul_(list(gradients), self.clip_norm / (norm + 1e-6))
        optimizer = self.engine.optimizer
        set_learning_rate(optimizer, rate)
        for fragment in self.engine.fragments:
            if self.blocks.of[fragment.name] in skipped:
                spans = optimizer.skipped.setdefault(fragment.home, [])
                spans.append((fragment.offset, fragment.numel))
        self.engine.step()
        optimizer.skipped.clear()

    def _build_exchange(self, config: TrainingConfig) -> Exchange:
        group, machines = self.processes.counterparts, self.processes.machines
        compression = config.compression
        if compression is None or group is None:
            return Exchange(group, machines)
        if not self.blocks.parts:
            raise ValueError(
                "compression: the network has no matrices in residual blocks, and nothing else is"
                " compressed; leave compression out"
            )
        rank = self._rank(compression)
        return Exchange(
            group, machines, rank, compression.warm_start, compression.wire, config.seed
        )

    def _rank(self, compression: CompressionConfig) -> int:
        """The rank that is declared, or that saves what is declared, on all processes alike."""
        cut = [self.blocks.cut(one, one.weight) for one in self.engine.fragments]
        own = [
            (*piece.gradient.shape, piece.share)
            for pieces in cut for piece in pieces if piece.share is not None
        ]  # fmt: skip
        found = self.processes.gather(own, width=3)
        shapes = [Shape(int(rows), int(columns), share) for rows, columns, share in found]
        if compression.rank is None:
            assert compression.saving is not None
            return choose_rank(shapes, compression.saving)
        if not any(shape.rank(compression.rank) for shape in shapes):
            least = min(min(shape.rows, shape.columns) for shape in shapes)
            raise ValueError(
                f"compression.rank: {compression.rank} saves nothing with these matrices, the"
                f" smallest side of whose pieces is {least}; declare a lower rank, or a saving"
            )
        return compression.rank
