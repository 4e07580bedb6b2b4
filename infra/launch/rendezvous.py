"""Launcher `rendezvous`: several machines that share a folder, and no ssh.

The stage writes the run into the folder that is declared as `shared`. It must lie on a file system
that all machines see under the same path, and each machine must run `tapir join FOLDER --machine K`
(`infra.launch.machine`); that of machine 0 is started here, in the background, unless it runs
already. It outlives this process: a pipeline that dies leaves its training running, for `outlive`
seconds, and its next run takes it up again. Who holds the training is a lease in the folder, so
that a second pipeline waits for the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from infra.errors import LeaseHeld, PermanentError
from infra.launch.board import Board, Cancel, Ear, End, Submission, sha256
from infra.launch.choice import LaunchChoice
from infra.launch.conductor import PIPELINE
from infra.launch.contract import RUN, Request
from infra.launch.software import software
from infra.lease import Lease, holder
from infra.process import ProcessFailed, tail
from schemas.base import digest

_POLL = 0.2
_MACHINE_0 = "machine-0"  # its lease
_STATUS = {"done": 0, "failed": 1, "cancelled": 128 + 15}
_ROOT = Path(__file__).parents[2]


class RendezvousJob:
    """A run in a shared folder."""

    def __init__(self, board: Board, run: Submission, lease: Lease) -> None:
        self.folder = board.run(run.number)
        self.run = run
        self._board = board
        self._lease = lease
        self._ear = Ear()

    def poll(self) -> int | None:
        """0 done, 1 failed, 143 cancelled; None until none of its ranks can write any more."""
        end = self._board.ended(self.run.number)
        if end is None:
            self._miss_machine_0()
            return None
        loud = [k for k in range(self.run.machines) if not self._is_quiet(k)]
        return None if loud else _STATUS[end.state]

    def waits_for(self) -> str | None:
        """The machines that have not come yet."""
        run, board = self.run, self._board
        if board.may_go(run.number) or board.ended(run.number) is not None:
            return None
        states = {k: board.machine(k) for k in range(run.machines)}
        missing = [k for k, s in states.items() if s is None or s.number != run.number]
        # Machine 0 is started here, and takes a moment.
        others = [str(k) for k in missing if k > 0]
        if not others:
            return "the ranks start"
        return (
            f"waiting for machine{'s' if len(others) > 1 else ''} {', '.join(others)} of"
            f" {run.machines}; there, run: tapir join {run.folder} --machine {others[0]}"
        )

    def words(self, lines: int = 15) -> str:
        """The last lines that the ranks of each machine wrote."""
        logs = {k: self._board.log(self.run.number, k) for k in range(self.run.machines)}
        parts = [f"machine {k}:\n{tail(log, lines)}" for k, log in logs.items() if log.exists()]
        return "\n".join(parts)

    def check(self) -> None:
        """Say how it has ended.

        Raises:
            PermanentError: if a machine cannot take part.
            ProcessFailed: if it failed or was cancelled.
        """
        end = self._board.ended(self.run.number)
        assert end is not None, "it has ended"
        if end.permanent:
            raise PermanentError(end.why)
        if end.state != "done":
            raise ProcessFailed(f"training {end.state}: {end.why}\n{self.words()}".rstrip())

    def cancel(self, grace: float, *, final: bool) -> None:
        """End it on all machines; returns when nothing of it writes any more.

        Raises:
            Fenced: if another pipeline holds the training by now.
        """
        self._lease.check()
        wish = Cancel(grace=grace, why="the pipeline has cancelled it", final=final)
        self._board.cancel(self.run.number, wish)
        while self.poll() is None:
            time.sleep(_POLL)

    def _miss_machine_0(self) -> None:
        """Say that the run has failed, if who would say so is gone."""
        there = holder(self._board.store, _MACHINE_0) is not None
        gone = self._ear.silent(_MACHINE_0, there)
        state = self._board.machine(0)
        silent = self._ear.silent("machine 0", state)
        taken_up = state is not None and state.number == self.run.number
        hangs = taken_up and silent > 2 * self.run.lifetime
        if hangs or (not there and (taken_up or gone > self.run.lifetime)):
            log = self._board.folder / "logs" / "machine-0.txt"
            why = f"the process of machine 0 has ended or hangs; it may have said why in {log}"
            self._board.end(self.run.number, End(state="failed", why=why))

    def _is_quiet(self, machine: int) -> bool:
        """Whether a machine of an ended run has nothing running any more."""
        state = self._board.machine(machine)
        silent = self._ear.silent(f"machine {machine}", state)
        if state is None or state.number != self.run.number or silent > self.run.lifetime:
            return True
        if machine == 0 and holder(self._board.store, _MACHINE_0) is None:
            return True  # its ranks died with it
        waiting = state.state == "ready" and not self._board.may_go(self.run.number)
        return waiting or state.state not in {"ready", "running"}


class RendezvousLauncher:
    """A stage's hold on the training in a shared folder; leaving it lets the training go on.

    It needs neither the attempt's scratch folder nor its share of this machine's cores: the ranks
    write into the shared folder, and have all cores of their machines.
    """

    def __init__(
        self, choice: LaunchChoice, scratch: Path, cores: int, say: Callable[[str], None]
    ) -> None:
        assert choice.shared is not None, "checked when it was declared"
        self._choice = choice
        self._board = Board(Path(choice.shared))
        self._say = say

    def reattach(self, request: Request) -> RendezvousJob | None:
        """The newest run of the same training; another one, left by a pipeline that died, is ended.

        So is one of the same training with other settings (more machines, say).
        """
        wanted = self._describe(request)
        runs = self._board.submissions()
        for run in runs[:1]:  # only the newest can be running
            job = RendezvousJob(self._board, run, self._lease)
            same = (run.training, run.settings) == (wanted.training, wanted.settings)
            if not same and job.poll() is None:
                self._say(f"run {run.number}, which was started otherwise, is ended")
                job.cancel(run.grace, final=False)
        for run in runs:
            if run.training == wanted.training and self._board.run(run.number).is_dir():
                return RendezvousJob(self._board, run, self._lease)
        return None

    def submit(self, request: Request) -> RendezvousJob:
        """Write a run into the folder, and start machine 0.

        Raises:
            Fenced: if another pipeline holds the training by now.
        """
        self._lease.check()
        run, board = self._describe(request), self._board
        folder = board.run(run.number)
        shutil.rmtree(folder, ignore_errors=True)  # of a pipeline that died before it submitted
        folder.mkdir(parents=True)
        files = [_share(path, board.folder / "files") for path in request.files]
        (folder / RUN).write_text(request.prepare(folder, files))
        run = run.model_copy(update={"run_sha256": sha256(folder / RUN)})
        if not board.submit(run):
            raise LeaseHeld(f"another pipeline has just submitted a run in {board.folder}")
        self._drop_older(run)
        self._start_machine_0(run)
        return RendezvousJob(board, run, self._lease)

    def _describe(self, request: Request) -> Submission:
        """The run that a request asks for, as the next one of the folder."""
        choice, newest = self._choice, self._board.newest()
        installed = software(request.code, request.versions)
        hashes = [sha256(path) for path in request.files]
        declared = choice.model_dump(include={"machines", "processes", "address", "interface"})
        return Submission(
            number=newest.number + 1 if newest else 1,
            training=digest([request.identity, hashes, installed]),
            settings=digest([request.settings, declared]), run_sha256="",
            folder=str(self._board.folder), software=installed, code=request.code,
            versions=request.versions, module=request.module, machines=choice.machines,
            processes=choice.processes, address=choice.address, interface=choice.interface,
            patience=choice.patience, lifetime=choice.lifetime, outlive=choice.outlive,
            grace=choice.grace,
        )  # fmt: skip

    def _drop_older(self, run: Submission) -> None:
        """Remove earlier runs of the same training: what they left was taken over."""
        for older in self._board.submissions():
            if older.number < run.number and older.training == run.training:
                shutil.rmtree(self._board.run(older.number), ignore_errors=True)

    def _start_machine_0(self, run: Submission) -> None:
        if holder(self._board.store, _MACHINE_0) is not None:
            return
        log = self._board.folder / "logs" / "machine-0.txt"
        log.parent.mkdir(exist_ok=True)
        # Between two attempts of the stage it waits as long as a training would without one.
        patience = max(run.outlive, run.lifetime)
        command = [sys.executable, "-m", "infra.launch.join", run.folder, "0", str(patience)]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with log.open("ab") as output:
            subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, check=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        said = False
        while True:
            try:
                self._lease = Lease.take(self._board.store, PIPELINE)
                return self
            except LeaseHeld as error:
                if not said:
                    self._say(f"waiting: {error}")
                said = True
                time.sleep(1.0)

    def __exit__(self, *failure: object) -> None:
        self._lease.release()


def _share(path: Path, folder: Path) -> Path:
    """A file's place among the shared ones, by its content; brought there if it is not."""
    folder.mkdir(exist_ok=True)
    target = folder / f"{sha256(path)[:32]}-{path.name}"
    if not target.exists():
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(path, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a crash might leave half of it under the whole one's name
        partial.rename(target)
    return target
