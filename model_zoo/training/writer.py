"""Checkpoints written in a thread while the training goes on, and published once all have written.

The tensors that it is given must not change any more.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from model_zoo.training import checkpoints
from model_zoo.training.processes import Processes


@dataclass
class Writer:
    """Writes checkpoints in a thread, one at a time; all processes call it alike.

    One is published when every process has written its part. Where one could not, all raise why,
    and the checkpoint before stays the newest.

    Attributes:
        folder: of checkpoints.
        keep, keep_best: as `checkpoints.publish`.
    """

    folder: Path
    processes: Processes
    keep: int
    keep_best: int
    pending: int | None = None
    """Step of the checkpoint that is being written."""
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _written: Future[None] | None = None

    def start(self, step: int, files: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Begin a checkpoint, after the one before it is whole."""
        self.settle()
        folder = checkpoints.unfinished(self.folder, step)
        if self.processes.first:
            checkpoints.begin(self.folder, step)
        # All meet here, so that nobody writes before there is a folder.
        names = [name for own in self.processes.gather_texts(list(files)) for name in own]
        state = {**state, checkpoints.FILES: sorted(names)}
        self.pending = step

        def write() -> None:
            with checkpoints.explaining_full_disk(self.folder, step):
                for name, tensors in files.items():
                    save_file(tensors, folder / name)
                    checkpoints.seal(folder / name)
                if self.processes.first:
                    (folder / checkpoints.STATE).write_text(json.dumps(state))

        self._written = self._thread.submit(write)

    @property
    def done(self) -> bool:
        """Whether this process has nothing left to write, be it that it failed."""
        return self._written is None or self._written.done()

    def publish(self) -> None:
        """Make the checkpoint one, when all processes have written.

        Raises:
            ValueError: in all of them, if there was no room in one.
            OSError: in all of them, if one could not write for another reason.
        """
        if self._written is None:
            return
        assert self.pending is not None
        self._agree(self.pending, self._written.exception())
        if self.processes.first:
            with checkpoints.explaining_full_disk(self.folder, self.pending):
                checkpoints.publish(self.folder, self.pending, self.keep, self.keep_best)
        self._written, self.pending = None, None

    def settle(self) -> None:
        """Wait until the checkpoint that is being written is whole; raises as `publish`."""
        if self._written is None:
            return
        self.publish()
        self.processes.wait()

    def _agree(self, step: int, error: BaseException | None) -> None:
        """Raise in all processes what went wrong in any."""
        own = [] if error is None else [f"{type(error).__name__}: {error}"]
        said = self.processes.gather_texts(own)
        if not any(said):
            return
        if isinstance(error, ValueError):
            raise error
        reasons = [f"rank {rank}: {text}" for rank, texts in enumerate(said) for text in texts]
        # A ValueError says that trying again is of no use: the disk is full.
        kind = (
            ValueError
            if any(text.startswith("ValueError: ") for texts in said for text in texts)
            else OSError
        )
        raise kind(f"checkpoint of update {step} was not written: {'; '.join(reasons)}") from error
