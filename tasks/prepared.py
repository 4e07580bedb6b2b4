"""Pictures of image shards made ready for networks: square, of one size, as tensors.

A prepared file is safetensors with `images` uint8 [N, 3, R, R] and, where a text tokenizer is
given, `tokens` int32 [N, L] of the captions, -1 after the last; rows in the order of the shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.work import ShardWork, Work
from schemas.artifact import ImageShards, TextTokenizer, Unit
from tasks.pictures import decode, to_square
from tasks.tokens import encode_captions, load_tokenizer


def prepare(
    images: ImageShards, side: int, work: Work,
    text_tokenizer: TextTokenizer | None = None, text_length: int | None = None,
) -> list[Path]:  # fmt: skip
    """Local files with all pictures at `side` pixels, and their captions if a tokenizer is given.

    Raises:
        PermanentError: if there is no picture.
    """
    tokenizer = text_tokenizer.units[0] if text_tokenizer else None
    mapped = work.map(
        prepare_shard, images.units, side=side, tokenizer=tokenizer, text_length=text_length
    )
    files = [work.fetch(unit) for unit in mapped.units("prepared")]
    if not files:
        raise PermanentError("images: there is not one picture to train on")
    return files


def prepare_shard(
    unit: Unit, shard: ShardWork, *, side: int, tokenizer: Unit | None, text_length: int | None
) -> None:
    """Prepare one shard; nothing comes of one without pictures."""
    samples = list(read_shard(shard.fetch(unit)))
    if not samples:
        return
    arrays = {"images": np.stack([pixels(sample, side) for sample in samples])}
    if tokenizer is not None and text_length is not None:
        captions = [sample.caption for sample in samples]
        encoder = load_tokenizer(shard.fetch(tokenizer))
        arrays["tokens"] = encode_captions(encoder, captions, text_length).astype(np.int32)
    path = shard.scratch / f"{Path(unit.name).stem}.safetensors"
    save_file(arrays, path)
    shard.add("prepared", path, path.name, len(samples))


def pixels(sample: Sample, side: int) -> np.ndarray:
    """The centre square of a sample's picture, uint8 [3, side, side]."""
    square = np.asarray(to_square(decode(sample.image), side))
    # In this order of axes in memory, too: safetensors writes the bytes as they lie.
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def first_pictures(
    shards: Iterable[Path], side: int, count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The first pictures, uint8 [n, 3, side, side], with captions; keys are hashes, so any will do.

    Raises:
        PermanentError: if there are none.
    """
    samples = list(islice(_samples(shards), count))
    if not samples:
        raise PermanentError("images: there is not one picture")
    found = np.stack([pixels(sample, side) for sample in samples])
    return found, tuple(sample.caption for sample in samples)


def captions_of(shards: Iterable[Path]) -> Iterator[str]:
    """The caption of every sample."""
    return (sample.caption for sample in _samples(shards))


def _samples(shards: Iterable[Path]) -> Iterator[Sample]:
    for path in shards:
        yield from read_shard(path)
