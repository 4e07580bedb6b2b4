"""Shards of images: WebDataset tars that come out byte for byte the same from the same samples.

Fixed times, owners and modes, USTAR headers, samples in key order and records with sorted keys, so
that making a shard again gives the shard that was there. Shards are read as a stream: memory is
bounded by one sample.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAME = re.compile(r"([0-9a-f]{32})\.([a-z0-9]{2,5})")


@dataclass(frozen=True)
class Sample:
    """One pair: the image's bytes as they were fetched, its caption, its record.

    Attributes:
        key: `schemas.records.pair_key`.
        extension: "jpg", "png", "webp", …, by what the bytes are.
        record: JSON values by column name.
    """

    key: str
    image: bytes
    extension: str
    caption: str
    record: dict[str, Any] = field(default_factory=dict)


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples, which must come in key order, and say how many there were.

    Raises:
        ValueError: for keys out of order or that cannot be names in a shard.
    """
    count, last = 0, ""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            if sample.key <= last:
                raise ValueError(f"{path.name}: key {sample.key} comes after {last}; sort by key")
            for name, content in sorted(_members(sample).items()):
                tar.addfile(_header(name, len(content)), io.BytesIO(content))
            count, last = count + 1, sample.key
    return count


def read_shard(path: Path, only: Collection[str] | None = None) -> Iterator[Sample]:
    """Yield the samples of a shard in order.

    Args:
        only: keys of those that are wanted; the others' content is passed over.

    Raises:
        ValueError: for a member that is no part of a sample, or a sample without all its parts.
    """
    for key, parts in _grouped(path, only):
        yield _sample(path, key, {ending: content for ending, (content, _) in parts.items()})


def locate_images(path: Path) -> Iterator[tuple[Sample, int]]:
    """As `read_shard`, each with the byte of the file at which its image begins.

    Raises:
        ValueError: as `read_shard`, and for an image that does not lie in the file as it is.
    """
    with path.open("rb") as file:
        for key, parts in _grouped(path):
            sample = _sample(path, key, {ending: content for ending, (content, _) in parts.items()})
            _, start = parts[sample.extension]
            file.seek(start)
            if file.read(len(sample.image)) != sample.image:  # a sparse member, for one
                raise ValueError(f"{path.name}: the image of {key} is not stored plainly")
            yield sample, start


def _grouped(
    path: Path, only: Collection[str] | None = None
) -> Iterator[tuple[str, dict[str, tuple[bytes, int]]]]:
    """Key and parts of each sample: by ending the content, and where it begins."""
    with tarfile.open(path, "r|" if only is None else "r:") as tar:
        key, parts = "", dict[str, tuple[bytes, int]]()
        for member in tar:
            found = _NAME.fullmatch(member.name)
            if found is None or not member.isfile():
                raise ValueError(f"{path.name}: {member.name!r} is no member of an image shard")
            if only is not None and found[1] not in only:
                continue
            content = tar.extractfile(member)
            assert content is not None
            if found[1] != key and parts:
                yield key, parts
                parts = {}
            key = found[1]
            parts[found[2]] = content.read(), member.offset_data
        if parts:
            yield key, parts


def _members(sample: Sample) -> dict[str, bytes]:
    name = f"{sample.key}.{sample.extension}"
    if not _NAME.fullmatch(name) or sample.extension in ("txt", "json"):
        raise ValueError(f"{name!r} cannot be an image in a shard; use 32 hex digits and a type")
    record = json.dumps(sample.record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return {
        name: sample.image,
        f"{sample.key}.json": record.encode(),
        f"{sample.key}.txt": sample.caption.encode(),
    }


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, 0o644, 0
    return header


def _sample(path: Path, key: str, parts: dict[str, bytes]) -> Sample:
    images = [extension for extension in parts if extension not in ("txt", "json")]
    if len(images) != 1 or len(parts) != 3:
        raise ValueError(
            f"{path.name}: sample {key} has the parts {sorted(parts)}, not one image, txt and json"
        )
    caption, record = parts["txt"].decode(), json.loads(parts["json"])
    return Sample(key, parts[images[0]], images[0], caption, record)
