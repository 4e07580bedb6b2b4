"""img2dataset's own program, without the libraries that it imports and that do nothing here.

It starts four processes, and each would import torch (for webdataset's data loaders), wandb (off)
and, although nothing is resized, albumentations: 5 of 6 seconds, once a process, on every run.
Importing this module keeps them out; multiprocessing imports it in the children as well.
"""

from __future__ import annotations

import os
import sys
import types

RESIZING = "TAPIR_RESIZING"  # environment variable: set when pictures are decoded and resized

sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
sys.modules.setdefault("wandb", types.ModuleType("wandb"))
if RESIZING not in os.environ:
    sys.modules.setdefault("albumentations", types.ModuleType("albumentations"))

from img2dataset.main import main  # noqa: E402

if __name__ == "__main__":
    main()
