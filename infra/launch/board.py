"""What the machines of a training tell each other, as small files in the folder that they share.

    submissions/000001.json   a stage wants this run; made once, the newest one counts
    machines/2.json           what machine 2 is doing, said anew every second
    goes/000001.json          all machines are there: start
    cancels/000001.json       the stage, or nobody any more, wants it to end
    ends/000001.json          how it ended; made once, by machine 0 or, if that is lost, the stage
    runs/000001/              RUN.json, checkpoints, progress, the trained network
    logs/                     what ranks and machines say
    files/                    what the ranks read, by content
    partial/                  leases: who is which machine, and which pipeline holds the training

A run is numbered, and all that its ranks write lies under its number. So whoever was taken for lost
and wakes up writes where nobody reads any more. Clocks of different machines are never compared: a
machine is alive when what it says changes within a time that the reader measures.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Literal, TypeVar

from infra.errors import PermanentError
from infra.store import Store
from schemas.base import Frozen

Model = TypeVar("Model", bound=Frozen)


class Submission(Frozen):
    """A run that a stage wants, and what each machine must have for it."""

    number: int
    training: str  # digest of what is trained, on which files
    settings: str  # digest of how
    folder: str  # the shared folder, as the stage sees it
    run_sha256: str  # of RUN.json
    software: dict[str, str]  # digest of the code, and versions, by name
    code: tuple[str, ...]
    versions: tuple[str, ...]
    module: str
    machines: int
    processes: int
    address: str | None
    interface: str | None
    patience: float
    lifetime: float
    outlive: float
    grace: float


class MachineState(Frozen):
    """What a machine is doing about the newest run that it has seen."""

    beat: int  # grows with each sign of life
    host: str
    number: int = 0
    state: Literal["idle", "ready", "refuses", "running", "ended"] = "idle"
    status: int | None = None
    words: str = ""


class Cancel(Frozen):
    """A wish that a run ends."""

    grace: float
    why: str
    final: bool  # nothing comes after it, so that the machines may leave


class End(Frozen):
    """How a run ended."""

    state: Literal["done", "failed", "cancelled"]
    why: str = ""
    final: bool = False  # nothing comes after it
    permanent: bool = False  # trying again cannot help


class Board:
    """The files of a shared folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise PermanentError(
                f"shared: there is no folder {folder} on this machine; it must lie on a file system"
                " that all machines share, mounted everywhere under the same path: mount it, and"
                f" make the folder once with `mkdir {folder}`"
            )
        self.folder = folder.absolute()
        self.store = Store(str(self.folder))

    def newest(self) -> Submission | None:
        """The run that was submitted last."""
        numbers = self._numbers()
        return self._submission(numbers[0]) if numbers else None

    def submissions(self) -> list[Submission]:
        """All runs that were submitted, the newest first."""
        return [run for number in self._numbers() if (run := self._submission(number))]

    def _numbers(self) -> list[int]:
        names = [name.removesuffix(".json") for name in self.store.names("submissions")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _submission(self, number: int) -> Submission | None:
        return self._read(f"submissions/{number:06d}.json", Submission)

    def submit(self, submission: Submission) -> bool:
        """Make it the newest run; False if another one has that number."""
        return self._create("submissions", submission.number, submission)

    def go(self, number: int) -> None:
        """Have the machines start their ranks."""
        self.store.create(f"goes/{number:06d}.json", {})

    def may_go(self, number: int) -> bool:
        """Whether all machines are there."""
        return self.store.read(f"goes/{number:06d}.json") is not None

    def cancel(self, number: int, cancel: Cancel) -> None:
        """Wish that a run ends; the first wish counts."""
        self._create("cancels", number, cancel)

    def cancelled(self, number: int) -> Cancel | None:
        """The wish that a run ends, if there is one."""
        return self._read(f"cancels/{number:06d}.json", Cancel)

    def end(self, number: int, end: End) -> None:
        """Say how a run ended; who says it first is right."""
        self._create("ends", number, end)

    def ended(self, number: int) -> End | None:
        """How a run ended, if it has."""
        return self._read(f"ends/{number:06d}.json", End)

    def say(self, machine: int, state: MachineState) -> None:
        """Say what a machine is doing."""
        self.store.write(f"machines/{machine}.json", state.model_dump(mode="json"))

    def machine(self, machine: int) -> MachineState | None:
        """What a machine has said last."""
        return self._read(f"machines/{machine}.json", MachineState)

    def run(self, number: int) -> Path:
        """The folder that a run's ranks write into."""
        return self.folder / "runs" / f"{number:06d}"

    def log(self, number: int, machine: int) -> Path:
        """What the ranks of a machine say."""
        return self.folder / "logs" / f"{number:06d}-machine-{machine}.txt"

    def _create(self, kind: str, number: int, value: Frozen) -> bool:
        return self.store.create(f"{kind}/{number:06d}.json", value.model_dump(mode="json"))

    def _read(self, name: str, model: type[Model]) -> Model | None:
        value = self.store.read(name)
        return None if value is None else model.model_validate(value, strict=False)


class Ear:
    """Notices for how long something has not changed, by this machine's own clock."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[object, float]] = {}

    def silent(self, name: str, said: object) -> float:
        """Seconds since what is said under a name was first heard as it is now."""
        now = time.monotonic()
        if name not in self._heard or self._heard[name][0] != said:
            self._heard[name] = (said, now)
        return now - self._heard[name][1]


def sha256(path: Path) -> str:
    """The hash of a file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
