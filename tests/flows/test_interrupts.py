"""A signal that is swallowed on its way ends the process all the same; a noticed one does not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_DEAF = """
import os, sys, threading, time
from flows.interrupts import heeded
noticed = threading.Event()
with heeded(noticed, lambda number: os._exit(128 + number)):
    print("ready", flush=True)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            time.sleep(until - time.monotonic())
        except KeyboardInterrupt:
            if sys.argv[1] == "notice":
                noticed.set()
                time.sleep(4)
                sys.exit(7)
"""


@pytest.mark.parametrize(("way", "status"), [("swallow", 130), ("notice", 7)])
def test_a_signal_that_is_swallowed_stops_the_process(way: str, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _DEAF, way], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) == status
    process.stdout.close()
