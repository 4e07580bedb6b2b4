"""Drop captions that stand on many images of one domain: words of its template, not of a picture.

How often a caption stands somewhere is known only when the whole table has been read, so it is
counted before any pair is judged (`prepare`), in bounded memory. Images are told by their URLs, and
numbers count as one another: "Photo 1 of 20" and "Photo 2 of 20" are one caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from infra.tables import read_columns
from infra.work import ShardWork, Work
from schemas.artifact import Unit
from schemas.records import PAIR_SCHEMA, DropReason
from tasks.dedup.hash_groups import hash_text, whole_groups, write_groups
from tasks.filters import FilterParams, Objection

_ROW = np.dtype([("group", "<u8"), ("image", "<u8")])
_NUMBER = re.compile(r"\d+")


class Params(FilterParams):
    """The bound.

    Attributes:
        images: of one domain that may share a caption.
    """

    images: int = Field(default=20, ge=1)


def prepare(params: Params, parts: tuple[Unit, ...], work: Work) -> tuple[Unit, ...]:
    """For each part the captions in it that more images of their domain share than may."""
    files = [work.fetch(unit) for unit in work.map(count_part, parts).units("captions")]
    repeated = _repeated(files, params.images)
    return tuple(
        _add(np.intersect1d(np.load(file)["group"], repeated), part, work)
        for file, part in zip(files, parts, strict=True)
    )


def count_part(unit: Unit, shard: ShardWork) -> None:
    """The captions of one part, each with the images that it stands on."""
    table = read_columns(shard.fetch(unit), PAIR_SCHEMA, ("caption", "domain", "image_url"))
    captions, domains, images = (column.to_pylist() for column in table.columns)
    rows = np.empty(len(table), dtype=_ROW)
    rows["group"] = [_hash(*both) for both in zip(captions, domains, strict=True)]
    rows["image"] = [hash_text(image) for image in images]
    rows = rows[np.lexsort((rows["image"], rows["group"]))]
    found = rows[np.append(True, rows[1:] != rows[:-1])[: len(rows)]]
    path = shard.scratch / f"{unit.name}.npy"
    write_groups(path, found)
    shard.add("captions", path, path.name, len(found))


def _repeated(files: Iterable[Path], images: int) -> np.ndarray:
    """Hashes of the captions that stand on more images than may, sorted."""
    found = [np.zeros(0, np.uint64)]
    for rows in whole_groups(list(files)):
        distinct = np.unique(rows)
        groups, counts = np.unique(distinct["group"], return_counts=True)
        found.append(groups[counts > images])
    return np.concatenate(found)


def _add(hashes: np.ndarray, part: Unit, work: Work) -> Unit:
    path = work.scratch / f"repeated-{part.name}.npy"
    np.save(path, hashes)
    return work.add(path, path.name, len(hashes))


class Filter:
    """Looks the caption up among those that were found to be repeated."""

    def __init__(self, params: Params, prepared: Path) -> None:
        self.params = params
        self._repeated = frozenset(np.load(prepared).tolist())

    def judge(self, pair: dict[str, Any]) -> Objection | None:
        """REPEATED_CAPTION; the detail gives the bound, for the count grows with every crawl."""
        if self._repeated and caption_hash(pair) in self._repeated:
            detail = f"on more than {self.params.images} images of {pair['domain']}"
            return Objection(DropReason.REPEATED_CAPTION, detail)
        return None


def caption_hash(pair: dict[str, Any]) -> int:
    """What tells a caption of a domain from others."""
    return _hash(pair["caption"], pair["domain"])


def _hash(caption: str, domain: str) -> int:
    caption = _NUMBER.sub("0", " ".join(caption.casefold().split()))
    return hash_text(f"{domain}\n{caption}")
