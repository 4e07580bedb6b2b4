"""The contract between a stage that trains and whatever starts the ranks of a training.

A launcher is a context manager that stands for the stage's hold on its training. Within it the
stage takes up a training that runs already (`reattach`) or starts one (`submit`), polls it, and may
cancel it. What leaving it means is the launcher's: `local` ends the training, `rendezvous` lets it
go on for a declared time, so that the next run of the pipeline finds it.

A new launcher (Slurm, Kubernetes) is one file with the two classes, and one line in `LAUNCHERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from infra.launch.choice import LaunchChoice

RUN = "RUN.json"
LAUNCHERS: Mapping[str, str] = {
    "local": "infra.launch.local:LocalLauncher",
    "rendezvous": "infra.launch.rendezvous:RendezvousLauncher",
}


@dataclass(frozen=True)
class Request:
    """A training that a stage wants."""

    module: str
    """What each rank runs: `python -m MODULE RUN.json`."""
    code: tuple[str, ...]
    """Modules whose source must be the same on all machines, with all that they import."""
    versions: tuple[str, ...]
    """Distributions whose version must be the same on all machines."""
    identity: Mapping[str, Any]
    """What is trained: requests that agree in it and in their files want the same result."""
    settings: Mapping[str, Any]
    """How it is trained: a running training with other settings is replaced."""
    files: tuple[Path, ...]
    """What every rank reads, in order."""
    prepare: Callable[[Path, Sequence[Path]], str]
    """Fills an empty folder with what the training starts from, and gives the text of RUN.json for
    a training that writes into that folder and reads those files."""


class Job(Protocol):
    """A training that was started, and may have ended."""

    folder: Path
    """Where RUN.json, checkpoints, progress and the trained network lie."""

    def poll(self) -> int | None:
        """Its exit status, 0 for a good end; None while it runs."""

    def waits_for(self) -> str | None:
        """What must happen before the ranks start, in words; None once they have."""

    def words(self, lines: int = 15) -> str:
        """The last lines that its ranks wrote."""

    def check(self) -> None:
        """Say how it has ended.

        Raises:
            PermanentError: if it failed in a way that trying again cannot help.
            ProcessFailed: if it failed in another way.
        """

    def cancel(self, grace: float, *, final: bool) -> None:
        """End it: SIGTERM, at which it writes a checkpoint, and after `grace` seconds SIGKILL.

        When this returns, nothing of it writes any more. `final` says that the stage will not start
        it again, so that other machines need not wait for that.
        """


class Launcher(AbstractContextManager["Launcher"], Protocol):
    """A stage's hold on its training."""

    def reattach(self, request: Request) -> Job | None:
        """The newest job for the same training that an earlier attempt has left, ended or not.

        One that runs with other settings is cancelled first.

        Raises:
            PermanentError: if another training runs where this one would.
        """

    def submit(self, request: Request) -> Job:
        """Start a training; nothing of an earlier job writes any more when it starts.

        Raises:
            PermanentError: if it cannot be started here, saying what would help.
        """


def build_launcher(
    choice: LaunchChoice, scratch: Path, cores: int, say: Callable[[str], None]
) -> Launcher:
    """The launcher that a stage has declared.

    Args:
        choice: what was declared; `shared` is a path by now.
        scratch: a folder of this attempt.
        cores: processor cores that the ranks of this machine may use together.
        say: tells whoever watches what is waited for.
    """
    module, _, name = LAUNCHERS[choice.launcher].partition(":")
    launcher = getattr(importlib.import_module(module), name)
    built: Launcher = launcher(choice, scratch, cores, say)
    return built
