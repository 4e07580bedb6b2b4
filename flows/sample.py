"""Draw pictures for a prompt with a registered model or with a pipeline's own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.sampling import sample_pictures
from infra.environment import Environment
from infra.store import Store


@flow(name="sample", persist_result=False)
def sample(
    model: str,
    prompt: str,
    candidates: int = 16,
    keep: int = 4,
    seed: int = 0,
    output: str = "samples",
    partial: bool = False,
    home: str = ".tapir",
    store: str = "",
) -> dict[str, Any]:
    """Draw, rank and keep the best; paths and scores of the pictures, and the sheet's path."""
    environment = Environment(home=Path(home), store_url=store)
    opened = Store(environment.store_url)
    return sample_pictures(
        opened, environment, model, prompt, candidates, keep, seed, Path(output), partial=partial
    )
