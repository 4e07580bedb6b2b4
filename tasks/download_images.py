"""Fetch the images of pairs: img2dataset behind the fetch gateway, in passes.

Each part of the pair table is split into chunks, and a chunk makes one shard: it is the unit that
survives a kill and that next month's run finds made. Several chunks are fetched by one run of
img2dataset, whose start takes seconds. Bytes stay as they came unless a resize mode is chosen, so
that equal images have equal hashes. Every pair ends in exactly one of images or drops.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator

from infra.collection import Collection
from infra.errors import PermanentError
from infra.gateway.config import GatewayConfig, require_contact
from infra.img2dataset import ResizeMode, Settings
from infra.work import FROZEN, Mapped, Work
from schemas.artifact import DropTable, ImageShards, Outcomes, PairTable, Unit
from schemas.stage import StageParams, operational, stage
from tasks.chunks import split_pairs
from tasks.downloads import Downloads
from tasks.funnel import tally

STAGE = "download_images"


class DownloadParams(StageParams):
    """How images are fetched.

    Attributes:
        user_agent: a product name and a contact; sites address us by the name.
        resize_mode: "no" keeps the bytes as they came; the others are img2dataset's, to
            `image_size` pixels, encoded as JPEG.
        passes: how often a URL is asked for whose failure may pass.
        timeout, max_bytes: seconds and bytes that one answer may take.
        chunk: pairs a shard at most; a part with more is halved until no chunk has more.
        private_hosts: JSON file of hosts that are reached although they are private.
        processes, threads: of img2dataset; each thread has one request under way.
        batch: pairs a run of img2dataset.
        host_rate: requests a second to one host, 0 for as many as it answers.
        host_connections: requests at a time to one host.
        longest_wait: seconds; what a host wants to be asked for only later, or puts off for longer
            in all, is given up.
    """

    user_agent: str
    resize_mode: ResizeMode = "no"
    image_size: int = Field(default=256, ge=1)
    passes: int = Field(default=2, ge=1)
    timeout: float = Field(default=30.0, gt=0)
    max_bytes: int = Field(default=20_000_000, ge=1)
    chunk: int = Field(default=5_000, ge=1)
    private_hosts: str | None = operational(None)
    processes: int = operational(2, ge=1)
    threads: int = operational(32, ge=1)
    batch: int = operational(20_000, ge=1)
    host_rate: float = operational(10.0, ge=0)
    host_connections: int = operational(8, ge=1)
    longest_wait: float = operational(300.0, ge=0)

    @field_validator("user_agent")
    @classmethod
    def _honest(cls, value: str) -> str:
        return require_contact(value)


class Downloaded(NamedTuple):
    """The pairs whose images came, the others, and what came of every URL."""

    images: ImageShards
    drops: DropTable
    outcomes: Outcomes


@stage(retries=3, cores=2, memory_gb=1.5, versions=("img2dataset", "opencv-python-headless"))
def download_images(pairs: PairTable, params: DownloadParams, work: Work) -> Downloaded:
    """Fetch the image of every pair."""
    chunks = work.map(split_pairs, pairs.units, size=params.chunk).units("chunks")
    with open_collection(params, work) as collection:
        downloads = Downloads(STAGE, collection, chunks, params.identity(), params.batch, work)
        made = [downloads.make(chunk) for chunk in chunks]
        _keep_attempts(collection, work)
    images = ImageShards(units=_gather(made, "images"))
    drops = DropTable(units=_gather(made, "drops"))
    tally(STAGE, images, drops, work)
    return Downloaded(images, drops, Outcomes(units=_gather(made, "outcomes")))


def _gather(made: list[Mapped], output: str) -> tuple[Unit, ...]:
    return tuple(unit for one in made for unit in one.units(output))


def open_collection(params: DownloadParams, work: Work) -> Collection:
    """The collection of this stage; its journal and its bodies lie in the stage's state."""
    folder = work.state / "collection"
    folder.mkdir(exist_ok=True)
    hosts = work.environment.local(params.private_hosts) if params.private_hosts else None
    if hosts is not None and not Path(hosts).is_file():
        raise PermanentError(f"{STAGE}: private_hosts {params.private_hosts!r} is no file")
    config = GatewayConfig(
        table=folder / "urls.sqlite",
        journal=folder / "journal.sqlite",
        spool=work.state / FROZEN / "bodies",
        ready=folder / "ready.json",
        user_agent=params.user_agent,
        private_hosts=None if hosts is None else Path(hosts).absolute(),
        attempts=params.passes,
        max_bytes=params.max_bytes,
        total_timeout=params.timeout,
        host_rate=params.host_rate,
        host_connections=params.host_connections,
        longest_wait=params.longest_wait,
    )
    settings = Settings(
        processes=params.processes,
        threads=params.threads,
        resize_mode=params.resize_mode,
        image_size=params.image_size,
    )
    return Collection(config, settings, log=folder)


def _keep_attempts(collection: Collection, work: Work) -> None:
    """When and how each URL was asked for differs from run to run: kept outside the digests."""
    path = work.scratch / "attempts.parquet"
    work.add_side(path, path.name, collection.write_attempts(path))
    counts = collection.counts()
    work.count("requests", counts.pop("requests"))
    for outcome, urls in counts.items():
        work.metric(f"urls/{outcome}", urls)
