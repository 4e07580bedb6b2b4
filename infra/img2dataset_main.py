"""img2dataset's own program, started in a tenth of its usual time.

It spawns three processes and more, and each imports torch (for webdataset's data loaders), wandb
(off) and albumentations (unused unless pictures are resized): 21 s of processor time before the
first image, measured, on every run. Here what does nothing is left out, and the processes are
forked from one that has imported the rest: 2 s.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
import sys
import types
from typing import Any

RESIZING = "TAPIR_RESIZING"  # environment variable: set when pictures are decoded and resized

sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
sys.modules.setdefault("wandb", types.ModuleType("wandb"))
if RESIZING not in os.environ:
    sys.modules.setdefault("albumentations", types.ModuleType("albumentations"))

_CONTEXT = multiprocessing.get_context("forkserver")


def _from_the_server(method: str | None = None) -> Any:
    """img2dataset asks for "spawn" by name; a fork server is as clean, and imports once."""
    return _CONTEXT


multiprocessing.get_context = _from_the_server
multiprocessing.context.SpawnProcess = _CONTEXT.Process  # type: ignore[misc, assignment]

from img2dataset.main import main  # noqa: E402

if __name__ == "__main__":
    _CONTEXT.set_forkserver_preload(["infra.end_with_parent", "infra.img2dataset_main"])
    main()
