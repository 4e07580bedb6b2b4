"""Importing this ends the process when its parent does, and so all processes that it forks.

For a fork server (`multiprocessing`), whose processes each hold the pipe by which it would learn
that it is alone: without this, killed programs leave it and what it forked behind.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() == 1:  # it had ended before it was asked for
        os._exit(1)


_end_with_parent()
os.register_at_fork(after_in_child=_end_with_parent)
