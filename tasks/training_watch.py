"""What a stage sees of a training in another process: its progress, checkpoints, signs of life.

The ranks know nothing of us. Each checkpoint that they have completed is linked into the stage's
state folder, which only this process writes, so that the state can be brought to a store at any
time while they go on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.errors import PermanentError
from infra.launch.contract import Job
from infra.work import Work
from model_zoo.training.checkpoints import HASHES, complete_checkpoints

CHECKPOINTS, PROGRESS = "checkpoints", "progress.jsonl"
_AGAIN, _SAY_AGAIN = (
    30.0,
    600.0,
)  # seconds: to the next try to save, and until a failure is repeated

Notice = Callable[[Mapping[str, float], int], None]
"""Is told metrics and the update that they are of."""


class Watch:
    """Looks at one training: passes on its progress, keeps its checkpoints, notices when it hangs.

    Raises TimeoutError when there is no sign of progress for longer than `patience` seconds.
    """

    def __init__(
        self, job: Job, steps: int, patience: float, kept: Path, work: Work,
        notice: Notice | None = None,
    ) -> None:  # fmt: skip
        self._job = job
        self._live = job.folder / CHECKPOINTS
        self._kept = kept
        self._work = work
        self._progress = Progress(job.folder / PROGRESS, steps, work, notice)
        self._saver = Saver(work)
        self._signs = Signs(patience)
        self._waited: str | None = None

    def look(self) -> None:
        """Look once, at a training that runs or has ended."""
        # Read before checkpoints are kept, so that no step before one lacks its line.
        self._progress.read()
        self._saver.look(new=keep(self._live, self._kept))

    def look_out(self) -> None:
        """Look once, and whether anything has happened."""
        self.look()
        waits = self._job.waits_for()
        if waits is not None:  # for how long is the launcher's to decide
            if waits != self._waited:
                self._work.message(waits)
            self._signs = Signs(self._signs.patience)
        self._waited = waits
        sign = (self._progress.step, complete_checkpoints(self._live))
        self._signs.look(self._job, sign)


class Saver:
    """Brings the state to the store; where that fails, says so and tries again later.

    The copy in the store is for a next attempt on another machine. A store that cannot be reached
    for a while is no reason to end a training that is well.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._owed = False
        self._next = self._say = 0.0

    def look(self, new: bool) -> None:
        """Save where there is something new, or something left from a try that failed.

        Raises:
            Fenced: if another attempt has taken over.
        """
        self._owed = self._owed or new
        if not self._owed or time.monotonic() < self._next:
            return
        try:
            self._work.save_state()
        except PermanentError:
            raise
        except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
            self._note(error)
            return
        if self._say:
            self._work.message("the newest checkpoint is in the store again")
        self._owed, self._next, self._say = False, 0.0, 0.0

    def _note(self, error: Exception) -> None:
        now = time.monotonic()
        self._next = now + _AGAIN
        if now >= self._say:
            self._say = now + _SAY_AGAIN
            self._work.message(
                "the training goes on, but its newest checkpoint could not be brought to the store"
                f" ({type(error).__name__}: {error}); this is tried again every {_AGAIN:.0f} s"
            )


class Signs:
    """Notices a training that hangs: nothing about it changes any more."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._last: Any = None
        self._since = time.monotonic()

    def look(self, job: Job, sign: Any) -> None:
        """Compare what is to be seen of the training with what was seen before.

        Raises:
            TimeoutError: if it has been the same for longer than patience.
        """
        if sign != self._last:
            self._last, self._since = sign, time.monotonic()
        elif time.monotonic() - self._since > self.patience:
            raise TimeoutError(
                f"training: no sign of progress for {self.patience:.0f} s (patience); its last"
                f" words:\n{job.words()}"
            )


class Progress:
    """Passes what the first rank says on to those who watch, each step of a metric once.

    A resumed run says some steps again, with the same values; those that an earlier attempt has
    passed on already are skipped.
    """

    def __init__(
        self, path: Path, total: int, work: Work, notice: Notice | None = None
    ) -> None:  # fmt: skip
        self.path = path
        self.total = total
        self.work = work
        self.notice = notice
        self.step = 0
        self._position = 0
        self._known = {(entry["name"], entry["step"]) for entry in work.metrics()}

    def read(self) -> None:
        """Pass on the lines that are new and whole."""
        before = self.step
        for entry in self._lines():
            self.step = step = entry["step"]
            values = {"loss": entry["loss"], **entry["metrics"]}
            values["tokens_per_second"] = entry["tokens_per_second"]
            new = {name: one for name, one in values.items() if (name, step) not in self._known}
            if new:
                self._known |= {(name, step) for name in new}
                self.work.log(new, step)
                if self.notice is not None:
                    self.notice(new, step)
        if self.step != before:
            self.work.progress(self.step, self.total, "updates")

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._position += len(line)
                yield json.loads(line)


def keep(live: Path, kept: Path) -> bool:
    """Link the completed checkpoints into the state, and drop what the ranks have dropped.

    True if there is one that was not there yet.
    """
    found = complete_checkpoints(live)
    new = [path for path in found if not _is_linked(path, kept / path.name)]
    linked = [path for path in new if _link_living(path, kept / path.name)]
    names = {path.name for path in found}
    if linked or (found and not new):
        for old in complete_checkpoints(kept):
            if old.name not in names:
                shutil.rmtree(old)
    return bool(linked)


def _link_living(checkpoint: Path, target: Path) -> bool:
    try:
        link_checkpoint(checkpoint, target)
    except (FileNotFoundError, shutil.Error):
        if checkpoint.exists():
            raise
        return False  # the ranks have dropped it for a newer one in the meantime
    return True


def take_over(kept: Path, live: Path) -> None:
    """Give a new training the checkpoints of an earlier one."""
    live.mkdir(parents=True, exist_ok=True)
    for path in complete_checkpoints(kept):
        link_checkpoint(path, live / path.name)


def _is_linked(path: Path, target: Path) -> bool:
    # By the file and not by the name: a damaged checkpoint was perhaps made again. A copy on
    # another file system has the same time.
    here, there = path / HASHES, target / HASHES
    if not (here.exists() and there.exists()):
        return False
    return here.samefile(there) or here.stat().st_mtime_ns == there.stat().st_mtime_ns


def link_checkpoint(folder: Path, target: Path) -> None:
    """The same files under another name, all of them or none; checkpoints never change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"linking-{target.name}")
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link_or_copy)
    partial.rename(target)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(source, target)  # the ranks write on another file system
