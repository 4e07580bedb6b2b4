"""A rank that only counts: `python -m tests.infra.launch.rank RUN.json`.

Each count is written to a file of this rank in the run's folder, so that a test sees whether it
still writes. At SIGTERM it writes down where it is and leaves with status 143, as a real one does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(run: dict[str, str | int]) -> int:
    """Count from 0 to `counts`."""
    folder, rank = Path(str(run["folder"])), os.environ.get("RANK", "0")
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    with (folder / f"count-{rank}").open("wb", buffering=0) as file:  # goes on where folders move
        for count in range(int(run["counts"])):
            os.pwrite(file.fileno(), f"{count:9d}".encode(), 0)
            time.sleep(0.05)
            if told:
                (folder / f"saved-{rank}").write_text(str(count))
                return 143
    (folder / f"done-{rank}").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
