"""Launcher `local`: ranks on this machine that die with the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from infra.launch.choice import LaunchChoice
from infra.launch.contract import RUN, Request
from infra.launch.ranks import check_interface, rank_command, rank_environment
from infra.process import Guarded, start_guarded, tail


class LocalJob:
    """Ranks below a guard."""

    def __init__(self, folder: Path, guarded: Guarded) -> None:
        self.folder = folder
        self._guarded = guarded

    def poll(self) -> int | None:
        """Its exit status, -n if signal n ended it; None while it runs."""
        return self._guarded.poll()

    def waits_for(self) -> str | None:
        """Nothing: they start at once."""
        return None

    def words(self, lines: int = 15) -> str:
        """The last lines that its ranks wrote."""
        return tail(self._guarded.log, lines)

    def check(self) -> None:
        """Say how it has ended.

        Raises:
            ProcessFailed: if not well.
        """
        self._guarded.check()

    def cancel(self, grace: float, *, final: bool) -> None:
        """End it: SIGTERM, and after `grace` seconds SIGKILL."""
        self._guarded.terminate(grace)


class LocalLauncher:
    """Starts the ranks of one machine; leaving it ends them."""

    def __init__(
        self, choice: LaunchChoice, scratch: Path, cores: int, say: Callable[[str], None]
    ) -> None:
        self._choice = choice
        self._folder = scratch / "training"
        self._cores = cores
        self._job: LocalJob | None = None

    def reattach(self, request: Request) -> LocalJob | None:
        """None: whatever an earlier attempt had started has died with it."""
        return None

    def submit(self, request: Request) -> LocalJob:
        """Start the ranks, in the attempt's scratch folder."""
        choice = self._choice
        self._folder.mkdir(parents=True)
        run = self._folder / RUN
        run.write_text(request.prepare(self._folder, request.files))
        interface = check_interface(choice.interface) if choice.interface else None
        guarded = start_guarded(
            rank_command(request.module, run, choice.processes, choice.grace),
            log=self._folder / "log.txt",
            env=rank_environment(self._cores, choice.processes, interface),
        )
        self._job = LocalJob(self._folder, guarded)
        return self._job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._job is not None:
            self._job.cancel(2.0, final=True)
