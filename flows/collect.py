"""For data engineers: collect, clean and dedup; every stage of a declaration that makes data."""

from __future__ import annotations

from prefect import flow

from flows.declaration import BoundPipeline, load_pipeline
from flows.run import run_pipeline
from schemas.artifact import (
    Artifact,
    ClusterTable,
    DropTable,
    ImageShards,
    Outcomes,
    PairTable,
)

_DATA: tuple[type[Artifact], ...] = (PairTable, DropTable, Outcomes, ImageShards, ClusterTable)


@flow(name="collect", persist_result=False)
def collect(
    pipeline: str,
    overrides: list[str] | None = None,
    home: str = ".tapir",
    store: str = "",
    dask: str | None = None,
) -> dict[str, str]:
    """Run the data stages; only new sources and changed filters cost anything.

    Args and errors: as `flows.run.run_pipeline`.
    """
    until = data_stages(load_pipeline(pipeline, overrides or []))
    return run_pipeline(pipeline, until, overrides, home, store, dask)


def data_stages(pipeline: BoundPipeline) -> list[str]:
    """Names of the stages all of whose outputs are data, not models or what models made."""
    return [
        name
        for name, stage in pipeline.stages.items()
        if stage.spec.outputs and all(kind in _DATA for kind in stage.spec.outputs.values())
    ]
