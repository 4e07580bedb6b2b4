"""From a machine's gradients to everybody's: scales taken out, exchanged with other machines.

Where the engine tells of gradients as they come (FSDP2), a block is exchanged in a thread while the
backward pass goes on with the blocks before it. What remains, and everything under the other
engines, is exchanged when the backward pass has ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from model_zoo.training.engine import Engine
from model_zoo.training.fragments import Blocks
from model_zoo.training.powersgd import Exchange
from model_zoo.training.processes import Processes
from model_zoo.training.scales import Scales

OUTSIDE = "outside"
"""What parameters outside of all residual blocks are called together."""


class Reduction:
    """Reduces the gradients of one update after the other.

    Attributes:
        names: of all residual blocks and `OUTSIDE`, sorted.
        waited: seconds that the last update waited for its exchange.
        observing: whether updates count what underflows, which takes a look at every number; the
            same in all processes.
        underflow: of the last update that was observed, the share of each scaled block's gradient
            that is zero, over all processes.
    """

    def __init__(
        self, engine: Engine, blocks: Blocks, exchange: Exchange, scales: Scales | None,
        processes: Processes,
    ) -> None:  # fmt: skip
        self.engine, self.blocks = engine, blocks
        self.exchange, self.scales = exchange, scales
        self.names = sorted({name or OUTSIDE for name in blocks.of.values()})
        self.waited = 0.0
        self.observing = False
        self.underflow: dict[str, float] = {}
        self._numbers: dict[str, list[int]] = {name: [] for name in self.names}
        for number, fragment in enumerate(engine.fragments):
            self._numbers[blocks.of[fragment.name] or OUTSIDE].append(number)
        # A group of its own, since a thread uses it while others are in use.
        self._world = processes.another_group() if scales is not None else None
        self._early = self._overlapped(processes) if engine.overlaps else frozenset()
        self._thread = ThreadPoolExecutor(1)
        self._device = processes.device
        cuda = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if cuda else None
        self._gradients: list[Tensor] = []
        self._arrived: dict[int, Tensor] = {}
        self._under_way: dict[str, Future[set[str]]] = {}

    def backward(self, loss: Tensor, last: bool) -> None:
        """One pass, with the last one the exchange begins."""
        if not last:
            self.engine.backward(loss)
            return
        self._arrived, self._under_way, self.underflow = {}, {}, {}
        self._gradients = self.engine.last_backward(loss, self._arrive)

    def finish(self) -> tuple[list[Tensor], frozenset[str]]:
        """The reduced gradients of the engine's fragments, and the blocks that overflowed.

        Those are zero, and to be left out of the update.
        """
        gradients = self._gradients
        start = time.perf_counter()
        overflowed: set[str] = set()
        for future in self._under_way.values():
            overflowed |= future.result()
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        rest = [name for name in self.names if name not in self._under_way]
        overflowed |= self._reduce(rest, dict(enumerate(gradients)))
        self.waited = time.perf_counter() - start
        return gradients, frozenset(overflowed)

    def _overlapped(self, processes: Processes) -> frozenset[str]:
        """The blocks of which every process has a part of each parameter: all meet for them."""
        if processes.machines == 1:
            return frozenset()
        parameters = [sum(of == name for of in self.blocks.of.values()) for name in self.names]
        missing = [
            wanted - len(self._numbers[name])
            for name, wanted in zip(self.names, parameters, strict=True)
        ]
        total = processes.total(torch.tensor(missing, device=processes.device)).tolist()
        whole = zip(self.names, total, strict=True)
        return frozenset(name for name, absent in whole if not absent and name != OUTSIDE)

    def _arrive(self, number: int, gradient: Tensor) -> None:
        """The engine has a gradient, in the midst of its backward pass."""
        name = self.blocks.of[self.engine.fragments[number].name]
        if name not in self._early:
            return
        self._arrived[number] = gradient
        if all(one in self._arrived for one in self._numbers[name]):
            event = None
            if self._stream is not None:
                event = torch.cuda.Event()
                event.record()
            self._under_way[name] = self._thread.submit(self._reduce_early, name, event)

    def _reduce_early(self, name: str, event: torch.cuda.Event | None) -> set[str]:
        side = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with side, torch.no_grad():
            if event is not None and self._stream is not None:
                self._stream.wait_event(event)
            return self._reduce([name], self._arrived)

    def _reduce(self, names: Sequence[str], gradients: Mapping[int, Tensor]) -> set[str]:
        overflowed = self._unscale(names, gradients)
        pieces = [
            piece
            for name in names
            if name not in overflowed
            for number in self._numbers[name]
            for piece in self.blocks.cut(self.engine.fragments[number], gradients[number])
        ]
        self.exchange.average(pieces)
        return overflowed

    def _unscale(self, names: Sequence[str], gradients: Mapping[int, Tensor]) -> set[str]:
        """Take the scales out; the blocks that overflowed somewhere are zero afterwards."""
        if self.scales is None or not names:
            return set()
        by_block = {name: [gradients[one] for one in self._numbers[name]] for name in names}
        sums = torch.stack([self._squares(own) for own in by_block.values()])
        if self.observing:
            sums = torch.cat([sums, *(self._zeros(own) for own in by_block.values())])
        # What is not finite in one process makes the sum not finite in all.
        dist.all_reduce(sums, group=self._world)
        finite, counts = sums[: len(names)], sums[len(names) :].view(-1, 2).tolist()
        for name, (zeros, numbers) in zip(names, counts, strict=False):
            if name != OUTSIDE:
                self.underflow[name] = zeros / numbers
        sound = zip(names, torch.isfinite(finite).tolist(), strict=True)
        overflowed = {name for name, fine in sound if not fine and name != OUTSIDE}
        by_block.pop(OUTSIDE, None)
        self.scales.unscale(by_block, overflowed)
        return overflowed

    def _zeros(self, gradients: Sequence[Tensor]) -> Tensor:
        """How many numbers are zero, and how many there are; float64."""
        there = sum(one.numel() for one in gradients)
        other = sum(torch.count_nonzero(one) for one in gradients)
        numbers = torch.tensor([there, there], dtype=torch.float64, device=self._device)
        numbers[0] -= other
        return numbers

    def _squares(self, gradients: Sequence[Tensor]) -> Tensor:
        """Sum of squares, float64; zero for none."""
        if not gradients:
            return torch.zeros((), dtype=torch.float64, device=self._device)
        return (torch.stack(torch._foreach_norm(list(gradients))).double() ** 2).sum()
