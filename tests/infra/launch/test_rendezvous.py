"""A training in a shared folder: found again, never doubled, fenced, ended within a known time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.errors import Fenced, PermanentError
from infra.launch.board import Board, Cancel, End, Submission, sha256
from infra.launch.choice import LaunchChoice
from infra.launch.contract import RUN, Request
from infra.launch.machine import Machine, join
from infra.launch.rendezvous import RendezvousJob, RendezvousLauncher
from infra.launch.software import software
from infra.lease import Lease, holder
from infra.process import ProcessFailed

ROOT = Path(__file__).parents[3]
RANK = "tests.infra.launch.rank"
FOREVER = 100_000


class Folder:
    """A shared folder, and what this test starts in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shared"
        self.path.mkdir()
        self.said: list[str] = []
        self.started: list[subprocess.Popen[bytes]] = []

    def launcher(self, **choice: Any) -> RendezvousLauncher:
        values = {"lifetime": 3, "patience": 60, "grace": 10, **choice, "launcher": "rendezvous"}
        parsed = LaunchChoice.model_validate({**values, "shared": str(self.path)})
        return RendezvousLauncher(parsed, self.path, 2, self.said.append)

    def join(self, machine: int) -> subprocess.Popen[bytes]:
        """Have a machine join."""
        command = [sys.executable, "-m", "flows.cli", "join", str(self.path)]
        with (self.path.parent / "join.log").open("ab") as output:
            self.started.append(
                subprocess.Popen(
                    [*command, "--machine", str(machine)], cwd=ROOT, stdout=output, stderr=output
                )
            )
        return self.started[-1]

    def machine_0(self) -> psutil.Process:
        """The process of machine 0."""
        lease = holder(Board(self.path).store, "machine-0")
        assert lease is not None, "machine 0 is not there"
        return psutil.Process(lease["pid"])

    def end(self) -> None:
        """Kill what is left."""
        for process in self.started:
            process.kill()
            process.wait()
        if holder(Board(self.path).store, "machine-0") is not None:
            self.machine_0().kill()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.end()


def request(counts: int = FOREVER, name: str = "counting", **settings: Any) -> Request:
    def prepare(folder: Path, files: Sequence[Path]) -> str:
        return json.dumps({"folder": str(folder), "counts": counts})

    return Request(
        module=RANK, code=(RANK,), versions=("pytest",), identity={"name": name},
        settings=settings, files=(), prepare=prepare,
    )  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 60.0) -> float:
    """Wait for something to happen; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began


def ended(job: RendezvousJob) -> int:
    """The status of a job, when it has one."""
    until(lambda: job.poll() is not None)
    status = job.poll()
    assert status is not None
    return status


def counts(job: RendezvousJob, rank: int = 0) -> int:
    """How far a rank is; -1 before it counts."""
    path = job.folder / f"count-{rank}"
    return int(path.read_text() or 0) if path.exists() else -1


def is_still(job: RendezvousJob, rank: int = 0) -> bool:
    """Whether a rank writes no more."""
    before = counts(job, rank)
    time.sleep(0.3)
    return counts(job, rank) == before


def test_a_job_outlives_its_stage_and_is_found_again(folder: Folder) -> None:
    with folder.launcher() as launcher:
        assert launcher.reattach(request(40)) is None
        first = launcher.submit(request(40))
        assert first.poll() is None
    with folder.launcher() as launcher:
        again = launcher.reattach(request(40))
        assert again is not None and again.folder == first.folder
        assert ended(again) == 0
        again.check()
    with folder.launcher() as launcher:  # and also when it has ended meanwhile
        after = launcher.reattach(request(40))
        assert after is not None and after.poll() == 0
        assert (after.folder / "done-0").exists()
    assert len(Board(folder.path).submissions()) == 1
    until(lambda: holder(Board(folder.path).store, "machine-0") is None)


def test_a_second_pipeline_waits_for_the_first(folder: Folder) -> None:
    entered = threading.Event()

    def enter() -> None:
        with folder.launcher():
            entered.set()

    with folder.launcher():
        second = threading.Thread(target=enter)
        second.start()
        until(lambda: folder.said)
        assert not entered.wait(0.5)
    second.join(10)
    assert entered.is_set()
    assert f"process {os.getpid()} on {socket.gethostname()} is at work" in folder.said[0]


@pytest.mark.parametrize("other", [request(name="another"), request(ranks=4)])
def test_a_run_that_is_not_as_declared_is_ended_before_the_next_starts(
    folder: Folder, other: Request
) -> None:
    with folder.launcher() as launcher:
        first = launcher.submit(request())
        until(lambda: counts(first) > 2)
    with folder.launcher() as launcher:
        left = launcher.reattach(other)
        assert (first.folder / "saved-0").exists()  # it had the time for a checkpoint
        assert is_still(first)
        same = other.identity == request().identity
        assert (left is None and not same) or (left is not None and left.poll() == 143)
        second = launcher.submit(other)
        until(lambda: counts(second) > 2)
        assert first.folder.exists() != same  # what was taken over is dropped
        second.cancel(5.0, final=True)


def test_a_job_whose_pipeline_does_not_come_back_ends_with_a_checkpoint(folder: Folder) -> None:
    with folder.launcher(outlive=1) as launcher:
        job = launcher.submit(request())
        until(lambda: counts(job) > 2)
    until((job.folder / "saved-0").exists)
    end = Board(folder.path).ended
    until(lambda: end(1) is not None)
    assert end(1) == End(
        state="cancelled", why="its pipeline has been gone for 1 s (outlive)", final=True
    )
    until(lambda: holder(Board(folder.path).store, "machine-0") is None)


def test_when_machine_0_dies_its_ranks_do_and_the_stage_can_start_again(folder: Folder) -> None:
    with folder.launcher() as launcher:
        job = launcher.submit(request())
        until(lambda: counts(job) > 2)
        folder.machine_0().kill()
        assert until(lambda: job.poll() is not None) < 5
        assert is_still(job)
        with pytest.raises(ProcessFailed, match="the process of machine 0 has ended"):
            job.check()
        second = launcher.submit(request(20))
        assert ended(second) == 0


def test_a_pipeline_that_was_replaced_cancels_and_submits_nothing(folder: Folder) -> None:
    with folder.launcher() as launcher:
        job = launcher.submit(request(60))
        store = Board(folder.path).store
        store.create("partial/pipeline/lease-000002.json", {"released": True})
        with pytest.raises(Fenced):
            job.cancel(5.0, final=True)
        with pytest.raises(Fenced):
            launcher.submit(request())
        assert ended(job) == 0


def test_machines_that_do_not_come_are_named(folder: Folder) -> None:
    with folder.launcher(machines=3, address="127.0.0.1:29511", patience=2) as launcher:
        job = launcher.submit(request())
        until(lambda: Board(folder.path).machine(0) is not None)
        assert f"tapir join {folder.path} --machine 1" in str(job.waits_for())
        assert ended(job) == 1
        with pytest.raises(ProcessFailed, match="machines 1, 2 of 3 did not come within 2 s"):
            job.check()


def test_a_taken_port_is_said_and_not_tried_again(folder: Folder) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with folder.launcher(machines=2, address=address) as launcher:
            job = launcher.submit(request())
            assert ended(job) == 1
            with pytest.raises(PermanentError, match="machine 0 .* is taken on machine 0"):
                job.check()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"versions": ("pytest",), "software": {"pytest": "0.1"}}, "pytest is .* here and 0.1 on"),
        ({"run_sha256": "0" * 64}, "RUN.json of run 1 is not what the stage has written"),
        ({"code": (RANK,), "software": {}}, "python is .* here and None on machine 0"),
        (
            {"software": {**software((), ()), "infra.launch.board": "0" * 64}},
            "the code of infra.launch.board is not that of machine 0",
        ),
        ({"machines": 1}, "machine 1: the run has machines 0 to 0"),
        ({"folder": "/elsewhere"}, "the shared folder is .* here, but /elsewhere for the stage"),
        ({"interface": "ib7"}, "'ib7': this machine has"),
    ],
)
def test_a_machine_that_cannot_take_part_says_why(
    tmp_path: Path, submission: Submission, changes: dict[str, Any], words: str
) -> None:
    board = Board(tmp_path)
    board.submit(submission.model_copy(update=changes))
    with pytest.raises(PermanentError, match=words):
        join(tmp_path, 1, 5, print, threading.Event())
    state = board.machine(1)
    assert state is not None and state.state == "refuses"


def test_a_machine_ends_its_ranks_when_the_shared_folder_is_gone(folder: Folder) -> None:
    with folder.launcher(lifetime=4) as launcher:
        job = launcher.submit(request())
        until(lambda: counts(job) > 2)
        [rank] = [p for p in folder.machine_0().children(recursive=True) if _is_rank(p)]
        folder.path.rename(folder.path.with_name("gone"))
        took = until(lambda: not rank.is_running() or rank.status() == "zombie")
        folder.path.mkdir(exist_ok=True)  # the lease is renewed there in the meantime
        shutil.rmtree(folder.path)
        folder.path.with_name("gone").rename(folder.path)
    assert 2 < took < 4  # `lifetime`, after which the others would go on without it


def _is_rank(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[1:3] == ["-m", RANK]
    except psutil.NoSuchProcess:  # or a zombie
        return False


def test_a_machine_that_falls_silent_ends_the_others_and_writes_no_more_when_it_wakes(
    folder: Folder,
) -> None:
    with folder.launcher(machines=2, address="127.0.0.1:29513") as launcher:
        job = launcher.submit(request())
        asleep = folder.join(1)
        until(lambda: counts(job, 0) > 2 and counts(job, 1) > 2)
        tree = [psutil.Process(asleep.pid), *psutil.Process(asleep.pid).children(recursive=True)]
        for process in tree:
            process.suspend()
        took = until(lambda: job.poll() is not None)
        print(f"the run was given up after {took:.1f} s of silence (lifetime 3 s)")
        assert 3 < took < 10
        assert is_still(job, 0)
        with pytest.raises(ProcessFailed, match="machine 1 has not been heard of for"):
            job.check()
        for process in tree:
            process.resume()
        until(lambda: not any(_is_rank(p) for p in psutil.Process(asleep.pid).children(True)))
        # It is there for the next run.
        second = launcher.submit(request(20))
        assert ended(second) == 0
        assert asleep.wait(10) == 0


def test_a_machine_that_is_told_to_leave_has_its_ranks_write_a_checkpoint(folder: Folder) -> None:
    leaving = folder.join(0)  # by hand, and not by the stage
    until(lambda: holder(Board(folder.path).store, "machine-0") is not None)
    with folder.launcher() as launcher:
        job = launcher.submit(request())
        assert folder.machine_0().pid == leaving.pid
        until(lambda: counts(job) > 2)
        leaving.terminate()
        assert leaving.wait(10) == 0
        assert (job.folder / "saved-0").exists()
        assert ended(job) == 1
        with pytest.raises(ProcessFailed, match="machine 0"):
            job.check()


def test_two_processes_cannot_be_the_same_machine(folder: Folder) -> None:
    board, said, leave = Board(folder.path), list[str](), threading.Event()
    lease = Lease.take(board.store, "machine-1")
    thread = threading.Thread(target=join, args=(folder.path, 1, 0.1, said.append, leave))
    thread.start()
    until(lambda: said)
    assert "is at work on machine-1" in said[0]
    assert board.machine(1) is None
    lease.release()
    thread.join(10)
    assert said[-1] == "there has been no run for 0 s; this machine leaves"


def test_the_first_wish_to_cancel_and_the_first_end_count(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for grace in (60.0, 1.0):
        board.cancel(1, Cancel(grace=grace, why="", final=False))
    for state in ("failed", "done"):
        board.end(1, End.model_validate({"state": state}))
    assert board.cancelled(1) == Cancel(grace=60.0, why="", final=False)
    assert board.ended(1) == End(state="failed")


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    """A run of two machines, as a stage would write it."""
    board = Board(tmp_path)
    board.run(1).mkdir(parents=True)
    (board.run(1) / RUN).write_text("{}")
    return Submission(
        number=1, training="", settings="", folder=str(tmp_path),
        run_sha256=sha256(board.run(1) / RUN), software=software((), ()), code=(), versions=(),
        module=RANK, machines=2, processes=1, address="127.0.0.1:29512", interface=None,
        patience=5, lifetime=3, outlive=5, grace=5,
    )  # fmt: skip


def test_a_machine_that_comes_in_the_middle_waits_for_the_next_run(
    tmp_path: Path, submission: Submission
) -> None:
    board = Board(tmp_path)
    lease = Lease.take(board.store, "machine-1")
    machine = Machine(board, 1, lease, 60, print, threading.Event(), None)
    board.submit(submission)
    board.go(1)
    assert machine._turn() is False
    state = board.machine(1)
    assert state is not None and (state.number, state.state) == (1, "idle")
    lease.release()


def test_a_machine_that_was_replaced_while_it_slept_takes_part_in_nothing(
    tmp_path: Path, submission: Submission
) -> None:
    board = Board(tmp_path)
    lease = Lease.take(board.store, "machine-1")
    machine = Machine(board, 1, lease, 60, print, threading.Event(), None)
    board.store.create("partial/machine-1/lease-000002.json", {"released": True})
    board.submit(submission)
    with pytest.raises(Fenced):
        machine._turn()
    assert board.machine(1) is None
    lease.release()
