"""What ranking gains: the worth of the first-ranked against the average, and against how many.

Each candidate is worth 1 or 0: right by a checker, or known by its own caption to a ranker that
did not choose it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.measures import best_of, sizes_up_to

Worth = Sequence[float]  # of one prompt's candidates, best-ranked first


def gains(worths: Sequence[Worth], name: str) -> dict[str, float]:
    """The share that is `name` of the first-ranked, of the average candidate, and of any."""
    known = [worth for worth in worths if worth]
    if not known:
        return {}
    return {
        name: float(np.mean([worth[0] for worth in known])),
        f"{name}_average": float(np.mean([np.mean(worth) for worth in known])),
        f"{name}_any": float(np.mean([max(worth) for worth in known])),
    }


def curve(worths: Sequence[Worth]) -> dict[int, float]:
    """The expected worth of the first-ranked among n candidates, for n = 1, 2, 4, …"""
    known = [worth for worth in worths if worth]
    if not known:
        return {}
    return {
        size: float(np.mean([best_of(worth, size) for worth in known]))
        for size in sizes_up_to(min(len(worth) for worth in known))
    }
