"""For ML teams: everything from the sources to a registered model, and the report of it."""

from __future__ import annotations

from prefect import flow

from flows.declaration import load_pipeline
from flows.months import scheduled_start
from flows.run import run_pipeline


@flow(name="retrain", persist_result=False)
def retrain(
    pipeline: str,
    overrides: list[str] | None = None,
    home: str = ".tapir",
    store: str = "",
    dask: str | None = None,
    month: str | None = None,
) -> dict[str, str]:
    """Run a whole declaration.

    Args, returns and errors: as `flows.run.run_pipeline`.
    """
    bound = load_pipeline(pipeline, overrides or [], month, scheduled_start())
    return run_pipeline(pipeline, None, overrides, home, store, dask, bound.month)
