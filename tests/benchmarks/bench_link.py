"""Training over a slow link: what compression between machines saves, and what it costs in loss.

Two network namespaces are two machines with two processes each, joined by a link of 200 Mbit/s in
each direction (needs root and iproute2). First table: time and bytes of an update, counted by the
training and by the link itself. Second table: the loss after 400 updates against the rank, on four
processes of one machine that act as two.

    python -m tests.benchmarks.bench_link [--updates 40] [--rate 200mbit] [--no-loss]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.model_zoo.training.cases import Case, run_cases
from tests.model_zoo.training.ranks import ROOT
from tests.two_machines import INTERFACE, TwoMachines, two_machines, why_not

_WIDE = {"width": 256, "heads": 4, "layers": 4}
_NARROW = {"width": 64, "heads": 2, "layers": 4}
_PORT = "29533"


def main() -> None:
    """Run both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rate", default="200mbit")
    parser.add_argument("--no-loss", action="store_true")
    options = parser.parse_args()
    if (missing := why_not()) is not None:
        sys.exit(f"no two machines here: {missing}")
    with tempfile.TemporaryDirectory() as folder:
        times(Path(folder), options.updates, options.rate)
        if not options.no_loss:
            losses(Path(folder))


def times(folder: Path, updates: int, rate: str) -> None:
    """Milliseconds and bytes of an update over the link."""
    print(f"link of {rate} each way, two machines of two processes, width 256, 4 layers")
    print("| engine | rank | ms an update | times as fast | MB counted | MB on the link | saved |")
    print("|---|---|---|---|---|---|---|")
    for engine in ("ZeRO 2", "ZeRO 3", "FSDP2"):
        plain = None
        for rank in (None, 64, 32, 16) if engine == "ZeRO 2" else (None, 32):
            found = _over_link(folder, engine, rank, updates, rate)
            plain = plain or found
            times_as_fast = plain["ms"] / found["ms"]
            saved = 1 - found["counted"] / plain["counted"]
            print(f"| {engine} | {rank or 'none'} | {found['ms']:.0f} | {times_as_fast:.2f}"
                  f" | {found['counted'] / 1e6:.2f} | {found['link'] / 1e6:.2f} | {saved:.0%} |",
                  flush=True)  # fmt: skip


def losses(folder: Path) -> None:
    """The loss after 400 updates against the rank, fixed and warm."""
    shared: dict[str, Any] = {"steps": 400, "ema": None, "checkpoint_every": 400}
    cases = {(None, False): Case(folder, "plain", 2, sizes=_NARROW, **shared)}
    for rank in (32, 16, 8):
        for warm in (False, True):
            compression = {"rank": rank, "warm_start": warm}
            name = f"loss {rank} {warm}"
            cases[rank, warm] = Case(
                folder, name, 2, sizes=_NARROW, compression=compression, **shared
            )
    run_cases(list(cases.values()), 4, timeout=1800)
    print("\nloss after 400 updates (mean of the last 40), ZeRO 2, width 64, 4 layers")
    print("| rank | bytes of all gradients sent | fixed Q | warm start |")
    print("|---|---|---|---|")
    plain = cases[None, False]
    print(f"| none | 100 % | {plain.losses()[-40:].mean():.4f} | |")
    for rank in (32, 16, 8):
        fixed, warm_one = (cases[rank, warm] for warm in (False, True))
        share = fixed.metric("exchange_bytes") / plain.metric("exchange_bytes")
        print(f"| {rank} | {share:.0%} | {fixed.losses()[-40:].mean():.4f}"
              f" | {warm_one.losses()[-40:].mean():.4f} |")  # fmt: skip


def _over_link(
    folder: Path, engine: str, rank: int | None, updates: int, rate: str
) -> dict[str, float]:
    training: dict[str, Any] = {"steps": updates, "ema": None, "checkpoint_every": 10**6}
    training |= {"engine": "fsdp"} if engine == "FSDP2" else {"zero_stage": int(engine[-1])}
    if rank is not None:
        training["compression"] = {"rank": rank}
    case = Case(folder, f"link {engine} {rank}", 2, sizes=_WIDE, **training)
    with two_machines(rate) as machines:
        bytes_before = machines.sent()
        _train(machines, case)
        sent = machines.sent() - bytes_before
    moments = [line["time"] for line in case.lines()]
    steps = [later - earlier for earlier, later in pairwise(moments[4:])]
    counted = 4 * case.metric("exchange_bytes")  # of all four processes
    return {"ms": 1000 * statistics.median(steps), "counted": counted, "link": sent / updates}


def _train(machines: TwoMachines, case: Case) -> None:
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2",
             f"--master-addr={machines.address}", f"--master-port={_PORT}",
             f"--log-dir={os.devnull}"]  # fmt: skip
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": str(ROOT)}  # fmt: skip
    nodes = [
        machine.run(
            [*agent, f"--node-rank={number}", "-m", "model_zoo.training.worker", str(case.path)],
            environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number, machine in enumerate(machines)
    ]  # fmt: skip
    said = [node.communicate(timeout=600)[0] for node in nodes]
    if any(node.returncode for node in nodes):
        sys.exit("\n".join(said))


if __name__ == "__main__":
    main()
