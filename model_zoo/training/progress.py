"""The file through which a training is watched: one JSON line for each logged update."""

from __future__ import annotations

import json
import time
from pathlib import Path


class Progress:
    """Appends lines; those of updates that a resumed run does again are dropped first."""

    def __init__(self, path: Path, step: int, tokens_per_step: int) -> None:
        self.path = path
        self.tokens_per_step = tokens_per_step
        self.mark = (step, time.monotonic())
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            shorter = path.with_name(path.name + ".unfinished")
            shorter.write_text("".join(kept))
            shorter.replace(path)

    def write(self, step: int, loss: float, metrics: dict[str, float]) -> None:
        """Say how update number `step` (from 1) went; the rate is that since the last line."""
        (since, start), now = self.mark, time.monotonic()
        self.mark = (step, now)
        entry = {
            "step": step,
            "loss": loss,
            "metrics": metrics,
            "tokens_per_second": (step - since) * self.tokens_per_step / max(now - start, 1e-9),
            "time": time.time(),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
