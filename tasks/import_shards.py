"""Take WebDataset shards that others made as a source of images: pairs with their bytes.

Each tar is one unit, made once. Its samples get the keys and records that downloaded ones have, so
that filters and deduplication take both, also together (`images`). Nothing is unpacked to disk,
nothing is unpickled, and what is no picture with a caption is a drop or is counted by file.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from pydantic import Field

from infra.image_types import image_type
from infra.shards import Sample, read_shard, write_shard
from infra.tables import TableWriter
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, ImageShards, Unit
from schemas.base import digest
from schemas.records import DROP_SCHEMA, DropReason, drop_record, pair_key
from schemas.stage import Source, StageParams, stage
from tasks.captioned import MOST_CAPTION_BYTES, MOST_PICTURE_BYTES, PICTURES
from tasks.distinct import first_of_keys
from tasks.funnel import tally
from tasks.sources.found import MAX_CAPTION
from tasks.sources.urls import UnusableAddress, absolute_url, host_of
from tasks.sources.warc import Fault
from tasks.text import one_line

STAGE = "import_shards"


class ImportParams(StageParams):
    """Where the shards are, and which keys of their samples' JSON hold what.

    Attributes:
        files: paths, globs or URLs of uncompressed tars.
        url, page, license: of the image; what img2dataset writes, by default.
        caption: where there is no `.txt`.
    """

    files: tuple[str, ...] = Field(min_length=1)
    url: str = "url"
    caption: str = "caption"
    page: str | None = None
    license: str | None = None

    def sources(self) -> tuple[str, ...]:
        """The files are read from outside the pipeline."""
        return self.files


class Imported(NamedTuple):
    """The pairs, and the samples that make none."""

    images: ImageShards
    drops: DropTable


@stage(retries=2, memory_gb=1.0, versions=("orjson", "numpy", "pyarrow"))
def import_shards(params: ImportParams, work: Work, images: ImageShards | None = None) -> Imported:
    """Make shards of the declared tars, behind those of `images` if there are any.

    A pair that several of them hold is kept where it comes first.
    """
    names = {name: getattr(params, name) for name in ("url", "caption", "page", "license")}
    mapped = work.map(import_shard, work.sources, names=names)
    units = (*(images.units if images else ()), *mapped.units("images"))
    kept, drops = (
        ImageShards(units=_keep_first(units, work)),
        DropTable(units=mapped.units("drops")),
    )
    tally(STAGE, kept, drops, work)
    return Imported(kept, drops)


def import_shard(source: Source, shard: ShardWork, names: dict[str, str | None]) -> None:
    """Make the unit of one tar."""
    label = f"{Path(source.name).stem[:120]}-{digest([source.name, source.identity])[:12]}"
    images, drops = shard.scratch / f"{label}.tar", shard.scratch / f"drops-{label}.parquet"
    path, found = shard.fetch(source), dict[str, _Described]()
    with TableWriter(drops, DROP_SCHEMA) as reject, path.open("rb") as file:
        for number, entry in enumerate(_entries(path, source, shard)):
            one = _describe(entry, file, names, {"source": source.name, "offset": number})
            if one.objection is not None:
                reject.write(drop_record(one.record, STAGE, *one.objection))
            elif one.record["key"] in found:
                shard.count("repeated_pairs")
            else:
                found[one.record["key"]] = one
        # In key order, which is not that of the file: of each picture only its place was kept.
        count = write_shard(images, (found[key].sample(file) for key in sorted(found)))
    for output, made, rows in (("images", images, count), ("drops", drops, reject.rows)):
        if rows:
            shard.add(output, made, made.name, rows)


@dataclass
class _Entry:
    """One sample of a tar: where its picture is, and its text."""

    key: str
    pictures: list[tuple[int, int]] = field(default_factory=list)  # offset and size in the file
    caption: bytes = b""
    described: bytes = b"{}"


class _Described(NamedTuple):
    record: dict[str, Any]
    place: tuple[int, int]
    objection: tuple[DropReason, str] | None

    def sample(self, file: Any) -> Sample:
        """The sample with its bytes."""
        content, record = _content(file, self.place), self.record
        extension = image_type(content)
        assert extension is not None  # it was looked at
        return Sample(record["key"], content, extension, record["caption"], record)


def _entries(path: Path, source: Source, shard: ShardWork) -> Iterator[_Entry]:
    """The samples of a tar in order: members of one key, side by side."""
    entry: _Entry | None = None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, ending = _split(member.name)
                if entry is not None and key != entry.key:
                    yield entry
                    entry = None
                entry = entry or _Entry(key)
                if member.isreg() and not member.issparse():
                    _take(entry, tar, member, ending)
            with path.open("rb") as file:
                if _content(file, (tar.offset, 512)) != bytes(512):
                    raise EOFError("cut at a member: a whole tar ends with empty blocks")
    # What tarfile raises on damaged and on malicious archives.
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError):
        shard.count(Fault.TRUNCATED)
        shard.count(f"{Fault.TRUNCATED}/{source.name}")
    if entry is not None:
        yield entry


def _take(entry: _Entry, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> None:
    if ending in PICTURES:
        entry.pictures.append((member.offset_data, member.size))
    elif ending in (".txt", ".json") and member.size <= MOST_CAPTION_BYTES:
        content = tar.extractfile(member)
        assert content is not None  # it is a regular file
        if ending == ".txt":
            entry.caption = content.read()
        else:
            entry.described = content.read()


def _describe(
    entry: _Entry, file: Any, names: dict[str, str | None], where: dict[str, Any]
) -> _Described:
    """The record of a sample and, unless it makes a pair, what is wrong with it."""
    said = _json(entry.described)
    values = {role: said.get(name) if name else None for role, name in names.items()}
    texts = {role: value if isinstance(value, str) else "" for role, value in values.items()}
    place, objection = entry.pictures[0] if entry.pictures else (0, 0), None
    content = _content(file, place) if place[1] <= MOST_PICTURE_BYTES else b""
    caption = entry.caption.decode("utf-8", "replace") or texts["caption"]
    sha256 = hashlib.sha256(content).hexdigest()
    # Without a URL, an image is what its bytes are.
    url, page = _absolute(texts["url"]) or f"urn:sha256:{sha256}", _absolute(texts["page"])
    record = {
        **where, "image_url": url, "page_url": page, "domain": host_of(page or url),
        "caption": one_line(caption, MAX_CAPTION), "caption_source": "shard", "language": None,
        "opt_out": None, "license": one_line(texts["license"], 512) or None, "sha256": sha256,
    }  # fmt: skip
    record["key"] = pair_key(url, page, str(record["caption"]))
    if len(entry.pictures) != 1:
        objection = DropReason.NOT_AN_IMAGE, f"{len(entry.pictures)} pictures in one sample"
    elif place[1] > MOST_PICTURE_BYTES:
        objection = DropReason.TOO_LARGE, f"{place[1]} bytes"
    elif len(content) < place[1]:
        objection = DropReason.TRUNCATED, f"{len(content)} of {place[1]} bytes"
    elif image_type(content) is None:
        objection = DropReason.NOT_AN_IMAGE, f"begins with {content[:8]!r}"
    elif not record["caption"]:
        objection = DropReason.NO_CAPTION, "no text beside the picture"
    return _Described(record, place, objection)


def _json(content: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _content(file: Any, place: tuple[int, int]) -> bytes:
    file.seek(place[0])
    content: bytes = file.read(place[1])
    return content


def _absolute(address: str) -> str:
    try:
        return absolute_url(address) if address else ""
    except UnusableAddress:
        return ""


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a member: WebDataset's keys end at the first dot after the last slash."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()


def _keep_first(units: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """The units without the samples whose key an earlier unit has."""
    listed = work.map(list_keys, units).units("keys")
    keys = (np.load(work.fetch(unit)) for unit in listed)
    first = first_of_keys(keys, work.scratch / "keys")
    plans = [_plan(unit, keep, work) for unit, keep in zip(units, first, strict=True)]
    rewritten = iter(work.map(rewrite_shard, [plan for plan in plans if plan]).outputs)
    return tuple(
        new for unit, plan in zip(units, plans, strict=True)
        for new in (next(rewritten).get("images", ()) if plan else (unit,))
    )  # fmt: skip


def list_keys(unit: Unit, shard: ShardWork) -> None:
    """The keys of one shard in order, as `S16`."""
    keys = b"".join(bytes.fromhex(sample.key) for sample in read_shard(shard.fetch(unit)))
    path = shard.scratch / f"keys-{unit.name}.npy"
    np.save(path, np.frombuffer(keys, dtype="S16"))
    shard.add("keys", path, path.name, len(keys) // 16)


def _plan(unit: Unit, keep: np.ndarray, work: Work) -> Unit | None:
    """A unit that says which samples of a shard stay; None if all do."""
    if keep.all():
        return None
    work.count("repeated_pairs", int((~keep).sum()))
    path = work.scratch / f"plan-{unit.name}.json"
    path.write_text(json.dumps({"unit": unit.model_dump(), "keep": keep.astype(int).tolist()}))
    return work.add(path, path.name)


def rewrite_shard(plan: Unit, shard: ShardWork) -> None:
    """Write a shard without the samples that its plan leaves out."""
    read = json.loads(shard.fetch(plan).read_text())
    unit = Unit(**read["unit"])
    path = shard.scratch / unit.name
    samples = zip(read_shard(shard.fetch(unit)), read["keep"], strict=True)
    count = write_shard(path, (sample for sample, keep in samples if keep))
    if count:
        shard.add("images", path, path.name, count)
