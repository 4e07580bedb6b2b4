"""For data engineers: collect, clean and dedup; every stage of a declaration that makes data."""

from __future__ import annotations

from prefect import flow

from flows.declaration import BoundPipeline, load_pipeline
from flows.months import scheduled_start
from flows.run import run_pipeline


@flow(name="collect", persist_result=False)
def collect(
    pipeline: str,
    month: str | None = None,
    overrides: list[str] | None = None,
    home: str = ".tapir",
    store: str = "",
    dask: str | None = None,
) -> dict[str, str]:
    """Run the data stages; only new sources and changed filters cost anything.

    Args, returns and errors: as `flows.run.run_pipeline`.
    """
    # Settled here: the flow that this one calls has a start of its own.
    bound = load_pipeline(pipeline, overrides or [], month, scheduled_start())
    return run_pipeline(pipeline, data_stages(bound), overrides, home, store, dask, bound.month)


def data_stages(pipeline: BoundPipeline) -> list[str]:
    """Names of the stages all of whose outputs are data, not models or what models made."""
    return [
        name
        for name, stage in pipeline.stages.items()
        if stage.spec.outputs and all(kind.is_data for kind in stage.spec.outputs.values())
    ]
