"""Exchanges of made-up gradients between processes that are a machine each."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from model_zoo.training import powersgd
from model_zoo.training.fragments import Piece
from model_zoo.training.powersgd import Exchange
from model_zoo.training.processes import Processes

MACHINES, UPDATES, RANK, SEED = 2, 4, 6, 11


class Part(NamedTuple):
    """A piece of a gradient as the cases have it."""

    block: str
    shape: tuple[int, ...]
    share: float | None
    size: float
    """Of its numbers, about."""


PARTS = {
    "one.qkv": Part("one", (24, 12), 0.5, 1.0),
    "one.out": Part("one", (24, 12), 0.5, 0.1),  # of the shape before: one bundle
    "one.expand": Part("one", (16, 32), 1.0, 1e4),
    "one.bias": Part("one", (24,), None, 1.0),
    "two.expand": Part("two", (32, 16), 1.0, 1e-9),
    "two.rest": Part("two", (2, 2), 0.1, 1.0),  # rank 1 would send as many numbers
    "embedding": Part("", (40,), None, 1e-3),
}
RANKS = {"one.qkv": 3, "one.out": 3, "one.expand": 6, "two.expand": 6}
"""Of the pieces that are compressed: their shares of rank 6."""
CASES: dict[str, dict[str, Any]] = {
    "plain": {"rank": None},
    "fp32": {},
    "warm": {"warm_start": True},
    "buckets": {"bucket": 1},
    "bf16": {"wire": "bf16"},
    "fp16": {"wire": "fp16"},
}


def gradient(name: str, machine: int, update: int) -> np.ndarray:
    """A machine's gradient of a piece: half of it the same on all machines and in all updates."""
    part = PARTS[name]
    common, own = (
        np.random.default_rng([zlib.crc32(name.encode()), *key]).standard_normal(part.shape)
        for key in ((0,), (1, machine, update))
    )
    return (part.size * (common + own)).astype(np.float32)


def run(case: str, processes: Processes) -> dict[str, torch.Tensor]:
    """What a process holds after each update, by `KIND/UPDATE/PIECE`."""
    options = {"rank": RANK, "seed": SEED, **CASES[case]}
    powersgd._BUCKET = options.pop("bucket", 1 << 24)
    exchange = Exchange(processes.counterparts, MACHINES, **options)
    found: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        own = {n: torch.from_numpy(gradient(n, processes.machine, update)) for n in PARTS}
        pieces = [Piece(n, PARTS[n].block, own[n], PARTS[n].share) for n in PARTS]
        exchange.average(pieces)
        for kind, held in (("mean", own), ("error", exchange.errors), ("q", exchange.factors)):
            found |= {f"{kind}/{update}/{name}": value.clone() for name, value in held.items()}
    found["sent"] = torch.tensor(exchange.traffic.sent)
    found["plain"] = torch.tensor(exchange.traffic.plain)
    return found


def main(folder: Path) -> None:
    """Every case, several updates of it; what came of it goes to FOLDER/CASE-RANK.safetensors."""
    with Processes(MACHINES) as processes:
        for case in CASES:
            save_file(run(case, processes), folder / f"{case}-{processes.rank}.safetensors")
