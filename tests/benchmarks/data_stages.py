"""Each data stage on drawn data of a chosen number of parts, for the benchmarks beside this file.

What a stage reads is made beforehand (`make_inputs`) and lies in the home's store; a tenth of it is
there twice, so that every stage has something to drop. `run_stage` runs one stage as a pipeline
does, its calls fanned out on a local Dask cluster.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import io
import json
import os
import random
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from infra.environment import Environment
from infra.shards import write_shard
from infra.sources import resolve_sources
from infra.store import Store
from infra.tables import write_table
from infra.work import Work
from schemas.artifact import ImageShards, PairTable, Unit
from schemas.records import PAIR_SCHEMA
from tests.benchmarks.bench_filters import SPECS, make_captions
from tests.tasks.image_shards import make_sample
from tests.tasks.pair_rows import pair_row
from tests.tasks.sources.plain_pages import wat_of_page
from tests.tasks.sources.warc_files import WarcMaker, add_wat
from tests.tasks.sources.web_pages import WORDS, page
from tests.tasks.web import serving

AGENT = "TapirTest/1.0 (+https://example.org/bot)"
ONE_IN = 10  # things of which one is there twice
CAPTION_FILTERS = [
    {"repeated_caption": {"images": 500}} if "repeated_caption" in spec else spec for spec in SPECS
]
PICTURE_FILTERS = ("decodable", "min_size", "aspect_ratio", "near_blank")


@dataclass(frozen=True)
class Sizes:
    """What one part holds; a part is a file, a part of a table or a shard."""

    pages: int = 1_000
    rows: int = 20_000
    pictures: int = 1_000
    side: int = 128  # of a picture, pixels
    fetched: int = 400  # pictures that are fetched


def numbers(part: int, count: int) -> list[int]:
    """What a part holds, by number; one in `ONE_IN` is in the part before, too."""
    return [
        number - count if part and number % ONE_IN == 0 else number
        for number in range(part * count, (part + 1) * count)
    ]


# What is read


def make_inputs(kind: str, home: Path, parts: int, sizes: Sizes) -> None:
    """Make what the stages of one kind read, part by part."""
    folder = home / "inputs" / kind
    folder.mkdir(parents=True)
    work = _work(home)
    units = [
        unit for part in range(parts)
        if (unit := _MAKERS[kind](folder, part, sizes, work)) is not None
    ]  # fmt: skip
    (home / f"{kind}.json").write_text(json.dumps([unit.model_dump() for unit in units]))


def _make_warc(folder: Path, part: int, sizes: Sizes, work: Work) -> None:
    maker = WarcMaker()
    for number in numbers(part, sizes.pages):
        maker.add(*page(number))
    (folder / f"{part:05d}.warc.gz").write_bytes(maker.bytes())


def _make_wat(folder: Path, part: int, sizes: Sizes, work: Work) -> None:
    maker = WarcMaker()
    for number in numbers(part, sizes.pages):
        url = page(number)[0]
        add_wat(maker, url, _link_metadata(url, number % 200))  # the plain parser is slow
    (folder / f"{part:05d}.wat.gz").write_bytes(maker.bytes())


@functools.cache
def _drawn_metadata(number: int) -> Any:
    return wat_of_page(*page(number))


def _link_metadata(url: str, number: int) -> Any:
    envelope = _drawn_metadata(number)["Envelope"]
    return {"Envelope": {**envelope, "WARC-Header-Metadata": {
        **envelope["WARC-Header-Metadata"], "WARC-Target-URI": url}}}  # fmt: skip


def _make_list(folder: Path, part: int, sizes: Sizes, work: Work) -> None:
    rows = [{"url": f"http://a.test/{n}", "caption": f"the picture {n} of a long list"}
            for n in numbers(part, sizes.rows)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{part:05d}.parquet")


def _words(number: int) -> str:
    """Words that set a caption apart from others like it."""
    return " ".join(random.Random(number).choices(WORDS, k=6))


def _make_pairs(folder: Path, part: int, sizes: Sizes, work: Work) -> Unit:
    captions = make_captions(sizes.rows)
    rows = [
        pair_row(f"{captions[n % sizes.rows]} {_words(n)}", image_url=f"http://{n % 500}.test/{n}",
                 page_url=f"http://{n % 500}.test/{part}", domain=f"{n % 500}.test")
        for n in numbers(part, sizes.rows)
    ]  # fmt: skip
    path = folder / f"pairs-{part:05d}.parquet"
    return work.add(path, path.name, write_table(path, rows, PAIR_SCHEMA))


def drawn(number: int, side: int) -> bytes:
    """A picture of large coloured fields, unlike every other."""
    cells = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _make_images(folder: Path, part: int, sizes: Sizes, work: Work) -> Unit:
    path = folder / f"images-{part:05d}.tar"
    samples = [
        replace(make_sample(f"{part}/{n}", drawn(n, sizes.side), f"picture {n}"), extension="jpg")
        for n in numbers(part, sizes.pictures)
    ]
    count = write_shard(path, sorted(samples, key=lambda sample: sample.key))
    return work.add(path, path.name, count)


def _make_tars(folder: Path, part: int, sizes: Sizes, work: Work) -> None:
    with tarfile.open(folder / f"{part:05d}.tar", "w") as tar:
        for n in numbers(part, sizes.pictures):
            said = json.dumps({"url": f"http://a.test/{n}"}).encode()
            for ending, content in (
                ("jpg", drawn(n, sizes.side)), ("json", said), ("txt", f"picture {n}".encode()),
            ):  # fmt: skip
                header = tarfile.TarInfo(f"{n:09d}.{ending}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def _make_wanted(folder: Path, part: int, sizes: Sizes, work: Work) -> Unit:
    """Pairs whose pictures are served, from 20 hosts."""
    rows = [
        pair_row(f"the picture {n}", image_url=f"http://{n % 20}.test/{n}",
                 page_url=f"http://pages.test/{part}")
        for n in numbers(part, sizes.fetched)
    ]  # fmt: skip
    path = folder / f"pairs-{part:05d}.parquet"
    return work.add(path, path.name, write_table(path, rows, PAIR_SCHEMA))


_MAKERS: dict[str, Callable[[Path, int, Sizes, Work], Unit | None]] = {
    "warc": _make_warc, "wat": _make_wat, "list": _make_list, "pairs": _make_pairs,
    "images": _make_images, "tars": _make_tars, "wanted": _make_wanted,
}  # fmt: skip


# The stages


def _collected(work: Work, entry: Any) -> None:
    from tasks.collect_pairs import CollectParams, collect_pairs

    params = CollectParams.model_validate({"files": [entry]})
    collect_pairs(params, _reading(params, work))


def _reading(params: Any, work: Work) -> Work:
    work.sources = resolve_sources(params.sources(), work.environment)
    return work


def _from_warc(home: Path, work: Work) -> None:
    _collected(work, str(home / "inputs/warc/*.warc.gz"))


def _from_wat(home: Path, work: Work) -> None:
    _collected(work, str(home / "inputs/wat/*.wat.gz"))


def _from_list(home: Path, work: Work) -> None:
    files = str(home / "inputs/list/*.parquet")
    _collected(work, {"table": files, "url": "url", "caption": "caption"})


def _imported(home: Path, work: Work) -> None:
    from tasks.import_shards import ImportParams, import_shards

    params = ImportParams(files=(str(home / "inputs/tars/*.tar"),))
    import_shards(params, _reading(params, work))


def _captions(home: Path, work: Work) -> None:
    from tasks.filter_captions import FilterCaptionsParams, filter_captions

    params = FilterCaptionsParams.model_validate({"filters": CAPTION_FILTERS})
    filter_captions(PairTable(units=_units(home, "pairs")), params, work)


def _urls(home: Path, work: Work) -> None:
    from tasks.dedup_urls import DedupUrlsParams, dedup_urls

    dedup_urls(PairTable(units=_units(home, "pairs")), DedupUrlsParams(), work)


def _like_captions(home: Path, work: Work) -> None:
    from tasks.dedup_captions import DedupCaptionsParams, dedup_captions

    dedup_captions(PairTable(units=_units(home, "pairs")), DedupCaptionsParams(), work)


def _downloaded(home: Path, work: Work) -> None:
    from tasks.download_images import DownloadParams, download_images

    pairs = PairTable(units=_units(home, "wanted"))
    size = pairs.records // len(pairs.units)
    params = DownloadParams(
        user_agent=AGENT, private_hosts=str(home / "web/hosts.json"), chunk=size, batch=2 * size,
        host_rate=0, host_connections=32,
    )  # fmt: skip
    download_images(pairs, params, work)


@contextlib.contextmanager
def wanted_pictures(home: Path) -> Iterator[None]:
    """Serve what `download_images` asks for, from a process of its own."""
    answer = {"type": "image/jpeg", "body": base64.b64encode(drawn(0, 64)).decode()}
    tables = (pq.read_table(path) for path in sorted((home / "inputs/wanted").iterdir()))
    urls = (url for table in tables for url in table["image_url"].to_pylist())
    with serving(home / "web", {url.removeprefix("http://"): answer for url in urls}):
        yield


def _pictures(home: Path, work: Work) -> None:
    from tasks.filter_images import FilterImagesParams, filter_images

    params = FilterImagesParams.model_validate({"filters": [{n: {}} for n in PICTURE_FILTERS]})
    filter_images(ImageShards(units=_units(home, "images")), params, work)


def _like_pictures(home: Path, work: Work) -> None:
    from tasks.dedup_images import DedupParams, dedup_images

    dedup_images(ImageShards(units=_units(home, "images")), DedupParams(), work)


def _models(work: Work) -> tuple[Any, Any]:
    from tests.tasks.tiny_models import add_ranker, add_text_tokenizer, vocabulary_of

    tokenizer = add_text_tokenizer(work)
    return add_ranker(work, vocabulary_of(work, tokenizer)), tokenizer


def _scored(home: Path, work: Work) -> None:
    from tasks.filter_by_clip import FilterByClipParams, filter_by_clip

    ranker, tokenizer = _models(work)
    params = FilterByClipParams.model_validate({"filters": [{"similarity": {"keep": 0.9}}]})
    filter_by_clip(ImageShards(units=_units(home, "images")), ranker, params, work, tokenizer)


def _like_meanings(home: Path, work: Work) -> None:
    from tasks.dedup_semantic import DedupSemanticParams, dedup_semantic

    images, params = ImageShards(units=_units(home, "images")), DedupSemanticParams(cosine=0.9999)
    dedup_semantic(images, _models(work)[0], params, work)


def _encoded(home: Path, work: Work) -> None:
    from tasks.encode_pairs import EncodeParams, encode_pairs
    from tests.tasks.tiny_models import add_image_tokenizer, add_text_tokenizer

    images, params = ImageShards(units=_units(home, "images")), EncodeParams(text_length=32)
    encode_pairs(images, add_text_tokenizer(work), add_image_tokenizer(work), params, work)


STAGES: dict[str, tuple[str, Callable[[Path, Work], None]]] = {
    "collect_pairs (WARC)": ("warc", _from_warc),
    "collect_pairs (WAT)": ("wat", _from_wat),
    "collect_pairs (URL list)": ("list", _from_list),
    "import_shards": ("tars", _imported),
    "filter_captions": ("pairs", _captions),
    "dedup_urls": ("pairs", _urls),
    "dedup_captions": ("pairs", _like_captions),
    "download_images": ("wanted", _downloaded),
    "filter_images": ("images", _pictures),
    "filter_by_clip": ("images", _scored),
    "dedup_images": ("images", _like_pictures),
    "dedup_semantic": ("images", _like_meanings),
    "encode_pairs": ("images", _encoded),
}


def run_stage(name: str, home: Path, workers: int) -> float:
    """Run a stage of `STAGES` on what was made in a home: seconds, without the cluster's start."""
    work = _work(home, workers)
    try:
        work.environment.client().run(importlib.import_module, f"tasks.{name.partition(' ')[0]}")
        start = time.monotonic()
        STAGES[name][1](home, work)
        return time.monotonic() - start
    finally:
        work.environment.close()


def fresh(home: Path, folder: Path) -> Path:
    """A home with the same inputs in which nothing is made yet; files are linked, not copied."""
    shutil.copytree(home, folder, copy_function=os.link)
    return folder


def _work(home: Path, workers: int = 1) -> Work:
    environment = Environment(home=home, cores=workers)
    scratch = home / "scratch" / uuid.uuid4().hex
    return Work(Store(environment.store_url), environment, scratch, home / "state", "code")


def _units(home: Path, kind: str) -> tuple[Unit, ...]:
    return tuple(Unit(**unit) for unit in json.loads((home / f"{kind}.json").read_text()))
