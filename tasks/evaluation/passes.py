"""How often a picture's codes take a generator through its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.candidates import read_candidates


def passes(network: str, sampling: Mapping[str, Any], drawn: Path) -> int:
    """Passes for one picture: the sampler's `steps`, or a pass for each code where it has none.

    Args:
        network: the generator's module.
        sampling: its declared settings.
        drawn: a file of its candidates, which says how many codes a picture has.
    """
    from model_zoo.generators import read_sampling  # imports torch, which takes seconds

    settings = read_sampling(network, sampling)
    height, width = read_candidates(drawn).codes.shape[2:]
    return int(getattr(settings, "steps", height * width))
