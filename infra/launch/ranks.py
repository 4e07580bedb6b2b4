"""How the ranks of one machine are started: their command and their environment.

Several ranks are started by torchrun, which ends them all when one fails and never starts one
again: what was lost is decided above, by who has all machines in view. Several machines meet by its
static rendezvous (`--master-addr`), which keeps nothing: a run's store lives as long as the run,
and who comes after a restart is written in the shared folder (`infra.launch.board`). Its c10d
rendezvous would keep the members in a store inside the agent of machine 0, die with that, and start
ranks again by itself, in a folder that the stage may have given up.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.launch.choice import host_and_port

# Bytes of freed memory that a worker keeps, for its next update needs as much again.
_KEPT = str(2**34)
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """Which of several machines this is."""

    machine: int
    machines: int
    address: str  # HOST:PORT of machine 0
    name: str  # of the run: ranks of another one never meet these


def rank_command(
    module: str, run: Path, processes: int, grace: float, place: Place | None = None
) -> list[str]:
    """What starts this machine's ranks, by torchrun where the training has several.

    Args:
        module: what each rank runs, with the path of RUN.json.
        run: that path.
        processes: ranks on this machine.
        grace: seconds that torchrun gives them at SIGTERM.
        place: which machine this is, where there are several.
    """
    rank = ["-m", module, str(run)]
    if processes == 1 and place is None:
        return [sys.executable, *rank]  # spares a second start of torch, 3 s
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--shutdown-timeout={grace:.0f}"]
    # Ranks write to the log that they inherit; else torchrun leaves empty folders in /tmp.
    torchrun += [f"--nproc-per-node={processes}", f"--log-dir={os.devnull}"]
    return [*torchrun, *(_meeting(place) if place else ["--standalone"]), *rank]


def _meeting(place: Place) -> list[str]:
    host, port = host_and_port(place.address)
    return [
        f"--nnodes={place.machines}", f"--node-rank={place.machine}", f"--rdzv-id={place.name}",
        f"--master-addr={host}", f"--master-port={port}", "--max-restarts=0",
    ]  # fmt: skip


def rank_environment(cores: int, processes: int, interface: str | None = None) -> dict[str, str]:
    """This process's environment, with the threads and the interface that each rank may use.

    Dask leaves settings for its own workers in it, which a training must not have: with MKL at one
    thread torch takes one for everything, and memory that is given back at every free is cleared
    by the kernel each time it is taken again. Both together made the demo's prior 2.5 times slower.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(max(1, cores // processes))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), _KEPT),
        **(_bound_to(interface) if interface else {}),
    }


def _bound_to(interface: str) -> Mapping[str, str]:
    # NCCL takes a name for the beginning of one unless told otherwise.
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}


def interface_towards(address: str) -> str:
    """The network interface through which this machine reaches machine 0.

    Left to itself, gloo takes the one that the host's own name resolves to, which is often
    loopback, and then no rank of another machine finds it.

    Raises:
        ValueError: if there is no way to that address.
    """
    host, port = host_and_port(address)
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # chooses a route and sends nothing
            own = probe.getsockname()[0]
    except OSError as error:
        raise ValueError(f"address {address!r}: this machine cannot reach it ({error})") from error
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == own for one in addresses):
            return name
    raise ValueError(
        f"address {address!r}: no interface of this machine has the address {own}; declare"
        " `interface`, or give `tapir join` one"
    )


def check_interface(interface: str) -> str:
    """The interface, which must be one of this machine's.

    Raises:
        ValueError: if it is not, naming those that are.
    """
    known = psutil.net_if_addrs()
    if interface not in known:
        raise ValueError(f"interface {interface!r}: this machine has {', '.join(sorted(known))}")
    return interface


def check_port_is_free(address: str) -> None:
    """Make sure that torchrun will be able to listen.

    Raises:
        ValueError: if another program listens there.
    """
    _, port = host_and_port(address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"address {address!r}: port {port} is taken on machine 0 ({error.strerror});"
                " declare another one"
            ) from error
