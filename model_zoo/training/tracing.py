"""A trace of a few updates by torch's profiler, for a viewer of Chrome's traces (Perfetto)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile

from model_zoo.training.config import TRACE, RunConfig
from model_zoo.training.processes import Processes

_AFTER = 5  # updates before the trace begins


class Tracer:
    """Traces updates of the first process, as many as `profile` says."""

    def __init__(self, run: RunConfig, processes: Processes) -> None:
        self.updates = run.training.profile if processes.first else 0
        self.path = run.progress.with_name(TRACE)
        self.count = 0
        self._profile: Any = None

    def step(self) -> None:
        """An update was done."""
        self.count += 1
        if self.updates and self.count == _AFTER:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.__enter__()
        elif self.count == _AFTER + self.updates:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
            self._profile.export_chrome_trace(str(self.path))
            self._profile = None
