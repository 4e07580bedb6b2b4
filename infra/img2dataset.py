"""img2dataset as a program: given URLs of the fetch gateway, it fetches, may resize, and packs.

It never sees the web: the gateway decides what is fetched, and its environment holds no proxy. What
it is not trusted with is known from its source (1.47): it retries at once (retries are off), exits
with 0 although shards failed (what came is compared with what was asked for), and writes tars that
differ from run to run (only the bytes are taken from them).
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from infra.process import Guarded, start_guarded

ResizeMode = Literal["no", "border", "keep_ratio", "center_crop", "keep_ratio_largest"]
_MAX_PIXELS = 2**27  # 134 megapixels; OpenCV decodes up to 2**30 by default, 3 GB a picture
_MAX_SHARD = 2_500  # images; a shard is one process's work, so large runs balance themselves
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Settings:
    """How img2dataset runs.

    Attributes:
        timeout: seconds for one URL; the gateway has bounds of its own, so this is the last resort.
        resize_mode: "no" keeps the bytes as they came; others decode, resize and encode as JPEG.
        image_size: side in pixels for the other modes.
    """

    processes: int = 2
    threads: int = 32
    timeout: int = 600
    resize_mode: ResizeMode = "no"
    image_size: int = 256


@dataclass(frozen=True)
class Result:
    """What img2dataset says of one URL: where its bytes lie, or why there are none."""

    url: str
    tar: Path | None = None
    offset: int = 0
    size: int = 0
    sha256: str = ""  # of the bytes as fetched
    error: str = ""
    undecodable: bool = False  # it came, but could not be decoded and resized

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to gain from asking the gateway for it again."""
        return self.tar is not None or self.undecodable

    def read(self) -> bytes:
        """The image's bytes."""
        assert self.tar is not None
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def start_img2dataset(urls: Sequence[str], folder: Path, settings: Settings, log: Path) -> Guarded:
    """Start img2dataset on some URLs with its output in `folder`, which must not exist."""
    folder.mkdir(parents=True)
    table = folder / "urls.parquet"
    pq.write_table(pa.table({"url": list(urls)}), table)
    options = _options(table, folder / "output", len(urls), settings)
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "infra.img2dataset_main", *arguments]
    environment = _environment(resizing=settings.resize_mode != "no")
    return start_guarded(command, log=log, env=environment, cwd=folder)


def read_results(folder: Path) -> Iterator[Result]:
    """What came of the URLs, as far as shards were finished; those of torn shards are missing."""
    for stats in sorted((folder / "output").glob("*_stats.json")):
        shard = stats.name.removesuffix("_stats.json")
        tar = stats.with_name(f"{shard}.tar")
        yield from _successes(tar)
        columns = ["url", "status", "error_message"]
        for row in pq.read_table(stats.with_name(f"{shard}.parquet"), columns=columns).to_pylist():
            if row["status"] != "success":
                resizing = row["status"] == "failed_to_resize"
                yield Result(row["url"], error=row["error_message"] or "", undecodable=resizing)


def _successes(tar: Path) -> Iterator[Result]:
    with tarfile.open(tar) as file:
        image: tarfile.TarInfo | None = None
        for member in file:
            if not member.name.endswith(".json"):
                image = member
                continue
            content = file.extractfile(member)
            assert content is not None
            assert image is not None, f"{tar}: {member.name} has no image before it"
            record = json.load(content)
            yield Result(
                record["url"], tar, image.offset_data, image.size, record.get("sha256") or ""
            )
            image = None


def _options(table: Path, output: Path, count: int, settings: Settings) -> dict[str, object]:
    share = -(-count // settings.processes)
    return {
        "url_list": table,
        "input_format": "parquet",
        "url_col": "url",
        "output_folder": output,
        "output_format": "webdataset",
        "number_sample_per_shard": max(1, min(_MAX_SHARD, share)),
        "processes_count": settings.processes,
        "thread_count": settings.threads,
        "timeout": settings.timeout,
        "retries": 0,
        "max_shard_retry": 0,
        "disable_all_reencoding": settings.resize_mode == "no",
        "resize_mode": settings.resize_mode,
        "image_size": settings.image_size,
        "extract_exif": False,
        "compute_hash": "sha256",
        "enable_wandb": False,
        # Its own reading of X-Robots-Tag: the gateway has dealt with that.
        "disallowed_header_directives": "[]",
    }


def _environment(resizing: bool) -> dict[str, str]:
    """No proxies, no telemetry, nothing else that the run's environment may hold."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    if resizing:
        kept["TAPIR_RESIZING"] = "1"  # see the program
    return {
        **kept,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(_MAX_PIXELS),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "no_proxy": "*",
    }
