"""What is to be seen of a training: rates, waits, memory, blocks; and what went wrong where."""

from __future__ import annotations

import math
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.training.config import Precision
from model_zoo.training.precision import TYPES, residual_blocks
from model_zoo.training.processes import Processes
from model_zoo.training.scales import Scales
from model_zoo.training.update import Updated

_SHOWN = 4  # samples of a batch that are named where something went wrong


@dataclass
class Watch:
    """Sums over the updates from one line of progress to the next.

    Attributes:
        flops: of one update's forward and backward pass in this process, recomputation apart.
        peak: operations a second of matrix products on this device, measured.
    """

    flops: float = 0.0
    peak: float = math.inf
    waited: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    sent: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    updates: int = 0
    since: float = field(default_factory=time.perf_counter)
    busy: float = field(default_factory=time.process_time)

    def count(self, loader: float, updated: Updated) -> None:
        """Take in an update: seconds that it waited for its batch, and what it did."""
        self.updates += 1
        self.waited["loader"] += loader
        self.waited["exchange"] += updated.waited
        self.sent += updated.sent
        self.skipped.update(updated.skipped)

    def metrics(self, updated: Updated, scales: Scales | None, machines: int) -> dict[str, float]:
        """Of the time since the last line; blocks as of the last update."""
        now = time.perf_counter()
        passed = max(now - self.since, 1e-9)
        busy = time.process_time()
        values = {
            "loader_share": self.waited["loader"] / passed,
            "memory_gb": memory() / 1e9,
            "cores": (busy - self.busy) / passed,
        }
        if self.flops:
            values["utilisation"] = self.flops * self.updates / passed / self.peak
        if machines > 1:
            values["exchange_share"] = self.waited["exchange"] / passed
            values["exchange_bytes"] = self.sent / self.updates
        values |= {f"norm/{name}": norm for name, norm in updated.norms.items()}
        values |= {f"underflow/{name}": share for name, share in updated.underflow.items()}
        if scales is not None:
            values |= {f"scale/{name}": one.value for name, one in scales.scales.items()}
            values |= {f"skipped/{name}": self.skipped[name] for name in scales.scales}
        self.waited.clear()
        self.sent, self.updates, self.since, self.busy = 0, 0, now, busy
        return values


def memory() -> int:
    """The most bytes that this process has held: of the GPU's, or of the machine's without one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matrix_rate(device: torch.device, precision: Precision) -> float:
    """Operations a second of a large matrix product, the best of three."""
    size = 8192 if device.type == "cuda" else 1024
    if device.type == "cpu" and precision == "fp16":
        size = 256  # CPUs emulate it, a thousand times slower than a GPU
    a = torch.randn(size, size, device=device).to(TYPES[precision])
    best = math.inf
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


@contextmanager
def counting_flops(watch: Watch, passes: int = 1) -> Iterator[None]:
    """Count a forward pass's operations; with the backward pass they are three times as many."""
    with FlopCounterMode(display=False) as counter:
        yield
    watch.flops = 3.0 * passes * counter.get_total_flops()


def find_unsound(network: nn.Module, forward: Callable[[], object], processes: Processes) -> str:
    """The first residual block with an output, in any process, that is not finite; in words.

    Of a network without such blocks it is the first layer.
    """
    kind, parts = "block", residual_blocks(network)
    if not parts:
        kind, parts = "layer", {n: m for n, m in network.named_modules() if not any(m.children())}
    found = [len(parts)]

    def look(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(number)

        return hook

    hooks = [part.register_forward_hook(look(n)) for n, part in enumerate(parts.values())]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    first = processes.least(min(found))
    if first < len(parts):
        return f"the first {kind} with an output that is not finite is {list(parts)[first]}"
    return f"the output of every {kind} is finite"


def name_unsound(norms: Mapping[str, float]) -> str:
    """The blocks whose gradient is not finite, in words."""
    blocks = [name for name, norm in norms.items() if not math.isfinite(norm)]
    return f"gradients are not finite in {', '.join(blocks[:_SHOWN])}" + (
        f" and {len(blocks) - _SHOWN} more" if len(blocks) > _SHOWN else ""
    )


def name_samples(dataset: object, parts: Sequence[tuple[int, np.ndarray]]) -> str:
    """The samples of a batch, in words: as the dataset calls them, else by number."""
    numbers = [int(number) for _, indices in parts for number in indices]
    naming = getattr(dataset, "name", str)
    names = [naming(number) for number in numbers[:_SHOWN]]
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"samples {', '.join(names)}{more}"
