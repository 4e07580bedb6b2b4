"""Read a set of captioned pictures that others made (COCO, CUB, one's own) to evaluate on.

The paper evaluates on captions of MS-COCO's and CUB's validation sets with their pictures. Pictures
are chosen by a hash of the seed and of what they are, so the choice does not depend on where the
set lies or in which order. Of a picture with several captions one is taken, so that no picture
counts twice (our choice). A set is taken as it is or not at all: a damaged picture or an empty
caption is refused by name, since evaluating on fewer pictures than declared is another evaluation.
"""

from __future__ import annotations

import hashlib
import heapq
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from infra.errors import PermanentError
from infra.image_types import image_type
from infra.shards import Sample, write_shard
from infra.work import Work
from schemas.artifact import EvaluationPairs, Unit
from schemas.stage import StageParams, stage
from tasks.captioned import File, Listed
from tasks.pictures import Undecodable, decode
from tasks.text import one_line
from tasks.tokens import BadPrompt, check_text


class CaptionedParams(StageParams):
    """Where the set is, and how much of it is taken.

    Attributes:
        files: paths, globs or URLs: pictures and .txt; one .json and its pictures; .tar.
        count: pictures that are taken, one caption each; all of them if it is None.
        seed: of the choice of pictures and captions.
    """

    format: Literal["folder", "coco", "webdataset"]
    files: tuple[str, ...] = Field(min_length=1)
    count: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    per_unit: int = Field(default=1000, gt=0)

    def sources(self) -> tuple[str, ...]:
        """The files are read from outside the pipeline."""
        return self.files

    def modules(self) -> tuple[str, ...]:
        """The reader of the format."""
        return (f"tasks.captioned.{self.format}",)


@stage(retries=2, memory_gb=2.0, versions=("pillow",))
def read_captioned(params: CaptionedParams, work: Work) -> EvaluationPairs:
    """Take the declared number of pairs."""
    reader: Any = importlib.import_module(f"tasks.captioned.{params.format}")
    files = [File.of(source, work.fetch) for source in work.sources]
    chosen = {one.name: one for one in _choose(reader.list_pairs(files), params)}
    read = (_sample(chosen[name], content, params.seed)
            for name, content in reader.read_pictures(files, chosen))  # fmt: skip
    units = tuple(_units(read, params.per_unit, work))
    work.count("pairs", len(chosen))
    return EvaluationPairs(units=units)


def _choose(listed: Iterable[Listed], params: CaptionedParams) -> list[Listed]:
    """Those that come first in the order of their hashes; a stream, of which `count` are held."""

    def place(one: Listed) -> str:
        return _hash(params.seed, one.identity, *one.captions)

    if params.count is None:
        return list(listed)
    chosen = heapq.nsmallest(params.count, listed, key=place)
    if len(chosen) < params.count:
        raise PermanentError(f"count: {params.count} pairs are asked for, and {len(chosen)} there")
    return chosen


def _sample(listed: Listed, content: bytes, seed: int) -> Sample:
    """A checked pair; its key is a hash of what it is.

    Raises:
        PermanentError: if the picture cannot be decoded, or a caption cannot be read.
    """
    try:
        picture = decode(content)
    except Undecodable as error:
        raise PermanentError(
            f"{listed.label}: cannot be decoded ({error.reason}: {error.detail}); take it out"
        ) from error
    extension = image_type(content)
    if extension is None:
        raise PermanentError(f"{listed.label}: it is of a type that is no image of the web")
    sha256 = hashlib.sha256(content).hexdigest()
    caption = _caption(listed, seed)
    record = {"sha256": sha256, "width": picture.width, "height": picture.height}
    return Sample(_hash(sha256, caption)[:32], content, extension, caption, record)


def _caption(listed: Listed, seed: int) -> str:
    captions = [one_line(caption) for caption in listed.captions]
    try:
        for caption in captions:
            check_text(caption)
    except BadPrompt as error:
        raise PermanentError(f"{listed.label}: {error}") from error
    if not captions:
        raise PermanentError(f"{listed.label}: it has no caption")
    return min(captions, key=lambda caption: _hash(seed, listed.identity, caption))


def _units(samples: Iterable[Sample], size: int, work: Work) -> Iterator[Unit]:
    """Shards of `size` pairs, each sorted by key."""
    stream = _distinct(samples)
    number = 0
    while part := sorted(islice(stream, size), key=lambda sample: sample.key):
        path = work.scratch / f"pairs-{number:05d}.tar"
        yield work.add(path, path.name, write_shard(path, part))
        number += 1
        work.progress(number * size, None, "pairs")


def _distinct(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The same with keys that differ, too, where a set holds one pair twice."""
    seen: Counter[str] = Counter()
    for sample in samples:
        again = seen[sample.key]
        seen[sample.key] += 1
        yield replace(sample, key=_hash(sample.key, again)[:32]) if again else sample


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
