"""Attempts at a training in a process of their own: `python -m tests.tasks.attempt HOME PARAMS`.

Trains a tiny prior by the stages' own code, in a home, with parameters as JSON; tries again once
where a pipeline would. What happens is appended to `events.jsonl` in that home. SIGTERM does what
it does to a pipeline: trainings are stopped before it leaves.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from infra.errors import PermanentError
from infra.launch.stopping import stop_trainings
from infra.process import ProcessFailed
from infra.work import Event, Work
from tasks.train_prior import PriorParams
from tasks.training_process import train_network

SIZES = {
    "text_vocabulary": 20, "text_length": 6, "image_vocabulary": 12,
    "grid_height": 4, "grid_width": 4,
}  # fmt: skip
CONFIG = {"width": 16, "heads": 2, "layers": 2, "conv_kernel": 3}
TRAINING = {
    "steps": 40, "batch_size": 8, "learning_rate": 1e-3, "engine": "torch", "ema": 0.9,
    "checkpoint_every": 5, "log_every": 2,
}  # fmt: skip


def pairs(folder: Path) -> Path:
    """A file of pairs, always the same."""
    random = np.random.default_rng(0)
    path = folder / "codes.safetensors"
    tokens = random.integers(0, 20, size=(24, 6), dtype=np.int32)
    codes = random.integers(0, 12, size=(24, 1, 4, 4), dtype=np.int32)
    save_file({"tokens": tokens, "codes": codes}, path)
    return path


def train(home: Path, params: dict[str, Any], work: Work) -> Path:
    """Train in this process."""
    training = {**TRAINING, **params.get("training", {})}
    parsed = PriorParams.model_validate({"config": CONFIG, **params, "training": training})
    config = parsed.with_sizes(SIZES)
    return train_network(parsed, parsed.training, config, [pairs(home)], work)


def main(home: Path, params: dict[str, Any]) -> None:
    """Train, and say what happens."""
    events = home / "events.jsonl"

    def say(**values: Any) -> None:
        with events.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def listen(event: Event) -> None:
        say(event=event.kind, **event.values)

    def attempt(tries: int) -> None:
        try:
            path = train(home, params, Work.local(home, listen=listen))
            say(event="trained", path=str(path))
        except (PermanentError, ProcessFailed, TimeoutError) as error:
            traceback.print_exc()
            say(event="failed", error=type(error).__name__, text=str(error))
            if tries and not isinstance(error, PermanentError):
                attempt(tries - 1)

    signal.signal(signal.SIGTERM, lambda *_: stop_trainings())
    thread = threading.Thread(target=attempt, args=(1,))
    thread.start()
    while thread.is_alive():
        thread.join(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
