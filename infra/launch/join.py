"""`python -m infra.launch.join FOLDER MACHINE PATIENCE`: a machine that outlives who starts it.

So the stage starts its own machine; people type `tapir join`, which stays in the foreground.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from infra.errors import PermanentError
from infra.launch.machine import join, leaving_at_a_signal


def main(folder: str, machine: str, patience: str) -> int:
    """Join in the background; the exit status of the foreground is that of the start alone."""
    if os.fork():
        return 0
    os.setsid()
    try:
        join(Path(folder), int(machine), float(patience), _say, leaving_at_a_signal())
    except PermanentError as error:
        _say(str(error))
        return 2
    return 0


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
