"""The processes of one training: who this one is, and what they agree on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self, cast

import torch
import torch.distributed as dist


class Processes:
    """This process among all; torchrun's environment variables say which it is.

    Without them it is the only one, and nothing listens on any port. They part at the end of the
    `with` block. Ranks are counted machine by machine, so that a machine has `per_machine` of them
    in a row; two processes of the same `place` on two machines are counterparts.

    Attributes:
        machine: this process's machine, from 0.
        place: this process among those of its machine, from 0.
        machine_group: the processes of this machine.
        counterparts: those of this place on all machines; None where there is one machine.
        alone: this process.
    """

    def __init__(self, machines: int = 1) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size % machines:
            raise ValueError(
                f"machines: {self.size} processes do not divide among {machines} machines; start"
                " the same number on each"
            )
        self.machines, self.per_machine = machines, self.size // machines
        self.machine, self.place = divmod(self.rank, self.per_machine)
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
        self._make_groups()

    def _make_groups(self) -> None:
        """All processes make all groups, in the same order, as torch wants it."""
        in_machines = [
            range(first, first + self.per_machine)
            for first in range(0, self.size, self.per_machine)
        ]
        between = [range(place, self.size, self.per_machine) for place in range(self.per_machine)]
        self.machine_group = self._own_group(in_machines)
        self.alone = self._own_group([range(rank, rank + 1) for rank in range(self.size)])
        self.counterparts = self._own_group(between) if self.machines > 1 else None

    def _own_group(self, groups: Sequence[range]) -> dist.ProcessGroup:
        made = [(self.rank in ranks, dist.new_group(list(ranks))) for ranks in groups]
        return next(cast(dist.ProcessGroup, group) for mine, group in made if mine)

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

    def least(self, value: int) -> int:
        """The smallest of all processes' numbers."""
        box = torch.tensor([value], device=self.device)
        if self.size > 1:
            dist.all_reduce(box, dist.ReduceOp.MIN)
        return int(box.item())

    def another_group(self) -> dist.ProcessGroup:
        """All processes once more, for a thread that must not wait for the others' turn."""
        return self._own_group([range(self.size)])

    def total(self, numbers: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
        """The sum of a tensor over a group (all processes without one), in place."""
        if self.size > 1:
            dist.all_reduce(numbers, group=group)
        return numbers

    def gather(self, rows: Sequence[Sequence[float]], width: int) -> list[list[float]]:
        """The rows of `width` numbers of all processes, one process after the other."""
        own = torch.tensor(rows, dtype=torch.float64, device=self.device).view(-1, width)
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(own)], device=self.device))
        padded = own.new_zeros(max(int(count) for count in counts), width)
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        pairs = zip(counts, found, strict=True)
        return [row for count, some in pairs for row in some[: int(count)].tolist()]

    def gather_texts(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts of all processes, one process after the other."""
        found: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(found, list(texts))
        return found

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
