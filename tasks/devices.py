"""Where networks run, and how they give the same numbers wherever that is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


def best_device() -> torch.device:
    """The accelerator, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def steady_threads() -> Iterator[None]:
    """One thread inside: sums are rounded alike wherever this runs, so pictures are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
