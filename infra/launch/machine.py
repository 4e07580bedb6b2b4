"""What each machine of a training runs: waits for a run, starts its ranks, ends them when it must.

The ranks hang on this process (`infra.guard`): when it dies, they do. It ends them too when the run
has ended, when machine 0 has fallen silent, and when the shared folder does not answer any more:
that is what the others see of it, who count it as lost a little later and go on without it. So
nothing is left writing when they start again. It takes two thirds of the run's `lifetime` to do so.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from infra.errors import LeaseHeld, PermanentError
from infra.launch.board import Board, Ear, End, MachineState, Submission, sha256
from infra.launch.conductor import Conductor, how
from infra.launch.contract import RUN
from infra.launch.ranks import (
    Place,
    check_interface,
    check_port_is_free,
    interface_towards,
    rank_command,
    rank_environment,
)
from infra.launch.software import differences
from infra.lease import Lease
from infra.process import Guarded, start_guarded

_TURN = 0.2  # seconds between looks at the folder
_BEAT = 1.0  # seconds between signs of life
_KILLED = 2.0  # seconds of grace for ranks whose run has failed: they have nothing left to save
Say = Callable[[str], None]


def join(
    folder: Path, machine: int, patience: float, say: Say, leave: threading.Event,
    interface: str | None = None,
) -> None:  # fmt: skip
    """Be a machine of the training in a shared folder, until that is done or cancelled.

    Args:
        folder: as declared under `shared`; all machines see it under this path.
        machine: number of this machine, from 0.
        patience: seconds without a run after which this machine leaves.
        say: tells whoever watches.
        leave: when it is set, the ranks write a checkpoint, and this machine leaves.
        interface: network interface, if not the one that leads to machine 0.

    Raises:
        PermanentError: if the folder is not there, or this machine cannot take part, saying why.
        Fenced: if another process has become this machine.
    """
    board = Board(folder)
    lease = _take_lease(board, machine, say)
    try:
        Machine(board, machine, lease, patience, say, leave, interface).run()
    finally:
        lease.release()


def leaving_at_a_signal() -> threading.Event:
    """An event that SIGTERM and the first Ctrl-C set; the second Ctrl-C is as ever."""
    leave = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        leave.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    return leave


class Machine:
    """One machine, between two looks at the folder."""

    def __init__(
        self, board: Board, number: int, lease: Lease, patience: float, say: Say,
        leave: threading.Event, interface: str | None,
    ) -> None:  # fmt: skip
        self._board = board
        self._number = number
        self._lease = lease
        self._patience = patience
        self._say = say
        self._leave = leave
        self._interface = interface
        self._conductor = Conductor(board, say) if number == 0 else None
        self._ear = Ear()
        self._state = MachineState(beat=0, host=socket.gethostname())
        self._said = 0.0  # when
        self._node: Guarded | None = None
        self._stopping = threading.Lock()  # held from the first wish on that the node ends
        self._run: Submission | None = None  # that this machine takes part in
        self._turned = time.monotonic()  # when the folder last answered

    def run(self) -> None:
        """Take part in runs until one is done or cancelled."""
        over = threading.Event()
        threading.Thread(target=self._fence, args=(over,), daemon=True).start()
        self._say(f"machine {self._number} waits for a run in {self._board.folder}")
        try:
            while not self._turn():
                time.sleep(_TURN)
        finally:
            over.set()
            if self._node is not None:
                self._node.terminate(_KILLED)

    def _turn(self) -> bool:
        """Look at the folder and do what follows; True when there is nothing left to do."""
        try:
            newest = self._newest()
            if newest is not None:
                self._deal(newest)
                if self._conductor:
                    self._conductor.turn(newest)
            self._speak()
            self._turned = time.monotonic()
            return self._is_over(newest)
        except OSError as error:  # the folder does not answer; `_fence` counts
            self._say(f"{self._board.folder}: {error}")
            return False

    def _newest(self) -> Submission | None:
        newest, number = self._board.newest(), self._run.number if self._run else 0
        if number > (newest.number if newest else 0):
            # What an empty folder in the place of a file system that is gone looks like.
            raise OSError(f"run {number} is not there any more")
        return newest

    def _deal(self, newest: Submission) -> None:
        if self._node is not None:
            self._watch_ranks(self._node)
        elif newest.number > self._state.number:
            if self._board.ended(newest.number) or self._board.may_go(newest.number):
                self._set("idle", newest.number)  # too late for it
            else:
                self._consider(newest)
        elif self._state.state == "ready" and self._run is not None:
            if self._board.ended(newest.number):
                self._set("idle")
            elif self._board.may_go(newest.number):
                self._start(self._run)

    def _consider(self, run: Submission) -> None:
        self._lease.check()  # another one may be this machine by now, if this one was suspended
        self._run = run
        try:
            self._check(run)
        except ValueError as error:
            self._set("refuses", run.number, words=str(error))
        else:
            self._set("ready", run.number)

    def _check(self, run: Submission) -> None:
        if self._number >= run.machines:
            raise ValueError(
                f"machine {self._number}: the run has machines 0 to {run.machines - 1}"
            )
        here, there = self._board.folder, Path(run.folder)
        if not there.is_dir() or not there.samefile(here):
            raise ValueError(f"the shared folder is {here} here, but {there} for the stage")
        if sha256(self._board.run(run.number) / RUN) != run.run_sha256:
            raise ValueError(f"{RUN} of run {run.number} is not what the stage has written")
        problem = differences(run.software, run.code, run.versions)
        if problem:
            raise ValueError(problem)
        self._choose_interface(run)
        if self._number == 0 and run.address is not None:
            check_port_is_free(run.address)

    def _choose_interface(self, run: Submission) -> str | None:
        declared = self._interface or run.interface
        if declared:
            return check_interface(declared)
        if run.machines == 1 or run.address is None or "GLOO_SOCKET_IFNAME" in os.environ:
            return None
        return interface_towards(run.address)

    def _start(self, run: Submission) -> None:
        self._lease.check()
        place = None
        if run.machines > 1 and run.address is not None:
            name = f"{run.training[:16]}-{run.number}"
            place = Place(self._number, run.machines, run.address, name)
        path, cores = self._board.run(run.number) / RUN, len(os.sched_getaffinity(0))
        self._stopping = threading.Lock()
        self._node = start_guarded(
            rank_command(run.module, path, run.processes, run.grace, place),
            log=self._board.log(run.number, self._number),
            env=rank_environment(cores, run.processes, self._choose_interface(run)),
        )
        self._say(f"run {run.number}: {run.processes} ranks started")
        self._set("running")

    def _watch_ranks(self, node: Guarded) -> None:
        run = self._run
        assert run is not None
        status = node.poll()
        if status is not None:
            self._node = None
            self._say(f"run {run.number}: the ranks ended {how(status)}")
            self._set("ended", status=status)
            return
        cancel = self._board.cancelled(run.number)
        if self._leave.is_set():
            self._stop(node, run.grace)
        elif self._board.ended(run.number) is not None:
            self._stop(node, _KILLED)
        elif cancel is not None:
            self._stop(node, cancel.grace)
        elif self._ear.silent("machine 0", self._board.machine(0)) > run.lifetime:
            self._say("machine 0 has fallen silent")
            self._stop(node, _KILLED)

    def _stop(self, node: Guarded, grace: float) -> None:
        """Have the ranks end; the first of several calls counts."""
        if self._stopping.acquire(blocking=False):
            # In a thread, for it takes as long as they do, and there are signs of life to give.
            threading.Thread(target=node.terminate, args=(grace,), daemon=True).start()

    def _fence(self, over: threading.Event) -> None:
        """End the ranks when the folder has not answered for long: the others will go on."""
        while not over.wait(_TURN):
            node, run = self._node, self._run
            if node and run and time.monotonic() - self._turned > run.lifetime * 2 / 3:
                self._say("the shared folder does not answer: the ranks are ended")
                self._stop(node, 0.0)

    def _set(self, state: str, number: int | None = None, **values: object) -> None:
        """Change what is said of this machine, and say it."""
        change = {"state": state, "status": None, "words": "", **values}
        if number is not None:
            change["number"] = number
        self._state = self._state.model_copy(update=change)
        self._said = 0.0
        self._speak()

    def _speak(self) -> None:
        if time.monotonic() - self._said >= _BEAT:
            self._state = self._state.model_copy(update={"beat": self._state.beat + 1})
            self._board.say(self._number, self._state)
            self._said = time.monotonic()

    def _is_over(self, newest: Submission | None) -> bool:
        if self._state.state == "refuses":
            raise PermanentError(f"cannot join: {self._state.words}")
        if self._node is None and self._leave.is_set():
            self._say("this machine was told to leave")
            return True
        if self._node is not None or self._state.state == "ready":
            return False
        run = self._run
        if run is not None and newest is not None and newest.number == run.number:
            end = self._board.ended(run.number)
            if end is not None and end.final:
                self._say(_farewell(run, end))
                return True
        if self._ear.silent("idle", (newest, self._state.state)) > self._patience:
            self._say(f"there has been no run for {self._patience:.0f} s; this machine leaves")
            return True
        return False


def _farewell(run: Submission, end: End) -> str:
    return f"run {run.number} is {end.state}{f': {end.why}' if end.why else ''}"


def _take_lease(board: Board, machine: int, say: Say) -> Lease:
    said = False
    while True:
        try:
            return Lease.take(board.store, f"machine-{machine}")
        except LeaseHeld as error:
            if not said:
                say(f"waiting: {error}")
            said = True
            time.sleep(1.0)
