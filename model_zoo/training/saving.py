"""What a training writes into a checkpoint, and how it comes back on however many processes.

Each process of the first machine writes its fragments of weights, moments and average; each process
of every machine its error buffers (by `model_zoo.training.writer`). A resume on as many machines
takes every machine's own error buffers; on another number their sum, divided by it (DALL-E,
appendix E); they may also be kept as their sum only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from model_zoo.training.ema import Average
from model_zoo.training.engine import Engine
from model_zoo.training.fragments import Blocks, Fragment
from model_zoo.training.moments import MOMENTS
from model_zoo.training.powersgd import Exchange
from model_zoo.training.processes import Processes
from model_zoo.training.shards import (
    AVERAGE,
    ERROR,
    WEIGHT,
    Shards,
    as_stored,
    key_of,
    write_shard,
)

_SUM = 99_999  # in the place of a machine's number: the sum over all of them


@dataclass
class Keeper:
    """Writes and reads the tensors of one training."""

    engine: Engine
    processes: Processes
    blocks: Blocks
    exchange: Exchange
    average: Average | None
    sum_errors: bool

    @property
    def writes(self) -> bool:
        """Whether this process's fragments are among those that make the network."""
        return self.processes.machine == 0 and (self.engine.sharded or self.processes.first)

    def files(self) -> dict[str, dict[str, Tensor]]:
        """This process's files of a checkpoint, copied: they do not change any more."""
        place, machine = self.processes.place, self.processes.machine
        files = {}
        if self.writes:
            files[f"shard-{place:05d}"] = self._own()
            if self.exchange.warm_start:
                files[f"factors-{place:05d}"] = dict(self.exchange.factors)
        if self.exchange.errors:
            errors = dict(self._errors())
            if self.sum_errors:
                for values in errors.values():
                    self.processes.total(values, self.processes.counterparts)
            if machine == 0 or not self.sum_errors:
                files[f"errors-{_SUM if self.sum_errors else machine:05d}-{place:05d}"] = errors
        return {
            f"{name}.safetensors": {key: _copied(value) for key, value in tensors.items()}
            for name, tensors in files.items()
        }

    def result(self) -> dict[str, Tensor]:
        """This process's fragments of the trained network: the average where one is kept."""
        fragments = self.engine.fragments
        values = self.average.values if self.average else [one.weight for one in fragments]
        pairs = zip(fragments, values, strict=True)
        return {key_of(WEIGHT, one): as_stored(one, value) for one, value in pairs}

    def load(self, folder: Path, step: int, machines: int) -> None:
        """Continue with the tensors of a checkpoint that `machines` machines wrote."""
        shards = Shards(folder.glob("shard-*.safetensors"))
        optimizer = self.engine.optimizer
        homes: dict[Tensor, list[Fragment]] = {}
        with torch.no_grad():
            for number, one in enumerate(self.engine.fragments):
                homes.setdefault(one.home, []).append(one)
                one.weight.copy_(shards.read(WEIGHT, one))
                if self.average:
                    self.average.values[number].copy_(shards.read(AVERAGE, one))
            for home, fragments in homes.items():
                optimizer.moments_of(home)["step"] = step
                for name in MOMENTS:
                    # At once: numbers in 8 bits share a scale with their neighbours.
                    values = torch.zeros(home.numel(), device=home.device)
                    for one in fragments:
                        one.of(values).copy_(shards.read(name, one))
                    optimizer.write(home, name, (0, len(values)), values)
        self.engine.publish()
        self._load_errors(folder, machines)
        self._load_factors(folder)

    def _own(self) -> dict[str, Tensor]:
        optimizer = self.engine.optimizer
        runs: dict[str, Tensor] = {}
        for number, one in enumerate(self.engine.fragments):
            span = (one.offset, one.numel)
            values = {WEIGHT: one.weight}
            values |= {name: optimizer.read(one.home, name, span) for name in MOMENTS}
            if self.average:
                values[AVERAGE] = self.average.values[number]
            runs |= {key_of(kind, one): as_stored(one, some) for kind, some in values.items()}
        return runs

    def _errors(self) -> Iterable[tuple[str, Tensor]]:
        for one in self.engine.fragments:
            whole = torch.zeros(one.numel, device=one.home.device)
            pieces = [p for p in self.blocks.cut(one, whole) if p.key in self.exchange.errors]
            for piece in pieces:
                piece.gradient.copy_(self.exchange.errors[piece.key])
            if pieces:
                yield key_of(ERROR, one), as_stored(one, whole)

    def _load_errors(self, folder: Path, machines: int) -> None:
        if self.exchange.rank is None or not any(folder.glob("errors-*")):
            return
        here = self.processes.machines
        summed = any(folder.glob(f"errors-{_SUM:05d}-*"))
        exact = machines == here and not summed
        own = [self.processes.machine] if exact else [_SUM] if summed else range(machines)
        written = [Shards(folder.glob(f"errors-{machine:05d}-*.safetensors")) for machine in own]
        divisor = 1 if exact else here
        for one in self.engine.fragments:
            parts = [shards.read(ERROR, one, rest=0.0) for shards in written]
            whole = (torch.stack(parts).sum(0) / divisor).to(one.home.device)
            for piece in self.blocks.cut(one, whole):
                if piece.share is not None:
                    self.exchange.errors[piece.key] = piece.gradient.clone()

    def _load_factors(self, folder: Path) -> None:
        if not self.exchange.warm_start:
            return
        wanted = {
            piece.key
            for one in self.engine.fragments
            for piece in self.blocks.cut(one, one.weight)
            if piece.share is not None
        }
        for path in sorted(folder.glob("factors-*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for key in wanted & set(file.keys()):
                    self.exchange.factors[key] = file.get_tensor(key).to(self.processes.device)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def write_result(
    keeper: Keeper, folder: Path, shapes: Mapping[str, tuple[int, ...]],
    write: Callable[[dict[str, Tensor]], None],
) -> None:  # fmt: skip
    """Bring the trained network together in the first process, by way of files in a folder.

    Args:
        keeper: of this process's fragments.
        folder: on a disk that all processes of the first machine see; it is removed afterwards.
        shapes: of all trained parameters.
        write: what the first process does with the parameters.
    """
    processes = keeper.processes
    if processes.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    processes.wait()
    if keeper.writes:
        write_shard(folder / f"shard-{processes.place:05d}.safetensors", keeper.result())
    processes.wait()
    if processes.first:
        shards = Shards(folder.glob("shard-*.safetensors"))
        write({name: shards.whole(WEIGHT, name, shape) for name, shape in shapes.items()})
        shutil.rmtree(folder)
