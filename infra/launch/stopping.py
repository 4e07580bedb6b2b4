"""Trainings of this process that must be let down gently before it leaves.

Stages run in threads that nothing can interrupt. So the main thread, at SIGTERM, sets each
training's wish to stop, and waits until their stages have cancelled them and kept their last
checkpoints.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CHANGED = threading.Condition()
_AT_WORK: set[threading.Event] = set()


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that is set when the training within the block shall stop."""
    wish = threading.Event()
    with _CHANGED:
        _AT_WORK.add(wish)
    try:
        yield wish
    finally:
        with _CHANGED:
            _AT_WORK.remove(wish)
            _CHANGED.notify_all()


def stop_trainings() -> None:
    """Stop all that are under way, and return when they have left.

    Each takes as long as its declared grace at the most.
    """
    with _CHANGED:
        for wish in _AT_WORK:
            wish.set()
        _CHANGED.wait_for(lambda: not _AT_WORK)
