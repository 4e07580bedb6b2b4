"""What a stage declares about where its training runs; none of it bears on what comes out."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from infra.launch.contract import LAUNCHERS
from schemas.pipeline import nearest
from schemas.stage import StageParams, operational


class LaunchChoice(StageParams):
    """Which launcher starts the ranks, on how many machines, and how long it waits for what."""

    launcher: str = operational("local")
    """`local`: on this machine. `rendezvous`: on several, each of which runs `tapir join`."""
    machines: int = operational(1, gt=0)
    processes: int = operational(1, gt=0)
    """Processes on each machine, which with those of the others share each batch; one a GPU."""
    address: str | None = operational(None)
    """HOST:PORT of machine 0, where the ranks of several machines find each other."""
    shared: str | None = operational(None)
    """Folder that all machines see under the same path; one training at a time uses it."""
    interface: str | None = operational(None)
    """Network interface of the ranks; by default the one through which `address` is reached."""
    patience: float = operational(1800.0, gt=0)
    """Seconds without a sign of progress after which a training counts as hung, and is ended; and
    for which machines that have not come are waited for."""
    lifetime: float = operational(30.0, gt=0)
    """Seconds of silence after which a machine counts as lost, and all others end the training."""
    outlive: float = operational(600.0, ge=0)
    """Seconds for which a training on several machines goes on when its pipeline has died."""
    grace: float = operational(60.0, ge=0)
    """Seconds that a training has for its last checkpoint when it is told to stop."""

    @model_validator(mode="after")
    def _can_be_launched(self) -> Self:
        if self.launcher not in LAUNCHERS:
            raise ValueError(f"launcher {self.launcher!r}: {nearest(self.launcher, LAUNCHERS)}")
        if self.launcher == "local" and self.machines > 1:
            raise ValueError(
                f"machines: launcher `local` has this one only, not {self.machines}; declare"
                f" `launcher: rendezvous`, or `processes: {self.machines}` for as many ranks here"
            )
        if self.launcher == "rendezvous" and not self.shared:
            raise ValueError(
                "shared: launcher `rendezvous` needs a folder on a file system that all machines"
                " share; declare it as `shared: /mnt/…`"
            )
        if self.address is not None:
            host_and_port(self.address)
        elif self.machines > 1:
            raise ValueError(
                "address: several machines need one to find each other at; declare HOST:PORT of"
                " machine 0, for example `address: 10.0.0.1:29500`"
            )
        return self


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT; an IPv6 address stands in brackets.

    Raises:
        ValueError: if it is something else, saying what is missing.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port:
        raise ValueError(f"address {address!r}: the port is missing; write HOST:PORT, HOST:29500")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"address {address!r}: {port!r} is no port; it is a number up to 65535")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare and bare == host):
        raise ValueError(
            f"address {address!r}: {host!r} is no host; write HOST:PORT, and an IPv6 address in"
            " brackets: [fd00::1]:29500"
        )
    return bare, int(port)
