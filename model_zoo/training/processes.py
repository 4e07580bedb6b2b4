"""The processes of one training: who this one is, and what they agree on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

import torch
import torch.distributed as dist


class Processes:
    """This process among all; torchrun's environment variables say which it is.

    Without them it is the only one, and nothing listens on any port. They part at the end of the
    `with` block.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.setdefault("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        backend = "nccl" if cuda else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what is written once."""
        return self.rank == 0

    def mean(self, values: Sequence[torch.Tensor | float]) -> list[float]:
        """The mean over processes of each number, the same on all of them."""
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
        if self.size > 1:
            numbers = numbers.to(self.device)
            dist.all_reduce(numbers)
            numbers /= self.size
        return [float(number) for number in numbers]

    def from_first(self, value: int) -> int:
        """The number that the first process has."""
        box = torch.tensor([value], device=self.device)
        dist.broadcast(box, 0)
        return int(box.item())

    def wait(self) -> None:
        """Return when all processes are here."""
        dist.barrier()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            # Without the barrier, gloo now and then aborts a process as it ends.
            dist.barrier()
        dist.destroy_process_group()
