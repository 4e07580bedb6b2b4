"""A run that is told to stop stops, whatever its main thread does at that moment.

Python raises a signal's exception in the main thread, wherever that is; a library that swallows
exceptions there swallows this one as well, and the run would go on (seen once in some hundred
runs). So a thread hears of the signal, too, and ends the process if the run does not.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 3.0  # seconds in which the run should notice by itself


@contextmanager
def heeded(noticed: threading.Event, give_up: Callable[[int], None]) -> Iterator[None]:
    """Within it, `give_up(number)` is called for SIGINT and SIGTERM that nobody has noticed.

    Outside the main thread signals are somebody else's, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(heard, noticed, give_up), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        noticed.set()
        os.close(told)
        listener.join()
        os.close(heard)


def _listen(heard: int, noticed: threading.Event, give_up: Callable[[int], None]) -> None:
    while number := os.read(heard, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and not noticed.wait(GRACE):
            give_up(number[0])
