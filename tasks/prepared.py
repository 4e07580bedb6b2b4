"""Pictures of image shards made ready for networks: square, of one size, as tensors.

A prepared file is safetensors with `images` uint8 [N, 3, R, R] and, where a text tokenizer is
given, `tokens` int32 [N, L] of the captions, -1 after the last; rows in the order of the shard.

Or pictures stay in their shards, and an index says where: the same without `images`, and with
`offsets` and `sizes` int64 [N] (`model_zoo.picture_shards`). The ranks then decode them in every
epoch, into the same pixels; a picture takes 16 bytes beside its shard instead of 3·R².
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save_file

from infra.errors import PermanentError
from infra.shards import Sample, locate_images, read_shard
from infra.work import ShardWork, Work
from model_zoo.pictures import as_planes
from schemas.artifact import ImageShards, TextTokenizer, Unit
from tasks.pictures import decode, to_square
from tasks.tokens import encode_captions, load_tokenizer

Loading = Literal["prepared", "shards"]


def prepare(
    images: ImageShards, side: int, work: Work,
    text_tokenizer: TextTokenizer | None = None, text_length: int | None = None,
    held_out: float = 0.0, pictures: Loading = "prepared",
) -> list[Path]:  # fmt: skip
    """Local files with all pictures at `side` pixels, and their captions if a tokenizer is given.

    With `pictures="shards"` they are each shard, followed by its index.

    Args:
        held_out: share of the pictures that is left out (`is_held_out`).

    Raises:
        PermanentError: if there is no picture.
    """
    tokenizer = text_tokenizer.units[0] if text_tokenizer else None
    function = prepare_shard if pictures == "prepared" else index_shard
    mapped = work.map(
        function, images.units, side=side, tokenizer=tokenizer, text_length=text_length,
        held_out=held_out,
    )  # fmt: skip
    files = list[Path]()
    for unit, made in zip(images.units, mapped.outputs, strict=True):
        if made and pictures == "shards":
            files.append(work.fetch(unit))
        files += [work.fetch(one) for one in made.get("prepared", ())]
    if not files:
        raise PermanentError("images: there is not one picture to train on")
    return files


def prepare_shard(
    unit: Unit, shard: ShardWork, *, side: int, tokenizer: Unit | None, text_length: int | None,
    held_out: float,
) -> None:  # fmt: skip
    """Prepare one shard; nothing comes of one without pictures."""
    found = read_shard(shard.fetch(unit))
    samples = [sample for sample in found if not is_held_out(sample.key, held_out)]
    if not samples:
        return
    arrays = {"images": np.stack([pixels(sample, side) for sample in samples])}
    captions = [sample.caption for sample in samples]
    arrays |= _tokens(captions, shard, tokenizer, text_length)
    path = shard.scratch / f"{Path(unit.name).stem}.safetensors"
    save_file(arrays, path)
    shard.add("prepared", path, path.name, len(samples))


def index_shard(
    unit: Unit, shard: ShardWork, *, side: int, tokenizer: Unit | None, text_length: int | None,
    held_out: float,
) -> None:  # fmt: skip
    """Say where the pictures of one shard lie; nothing comes of one without pictures."""
    captions, places = list[str](), list[tuple[int, int]]()
    for sample, start in locate_images(shard.fetch(unit)):
        if not is_held_out(sample.key, held_out):
            captions.append(sample.caption)
            places.append((start, len(sample.image)))
    if not places:
        return
    offsets, sizes = np.array(places, dtype=np.int64).T.copy()
    arrays = {"offsets": offsets, "sizes": sizes}
    arrays |= _tokens(captions, shard, tokenizer, text_length)
    path = shard.scratch / f"{Path(unit.name).stem}.index.safetensors"
    save_file(arrays, path, {"side": str(side)})
    shard.add("prepared", path, path.name, len(places))


def _tokens(
    captions: list[str], shard: ShardWork, tokenizer: Unit | None, text_length: int | None
) -> dict[str, np.ndarray]:
    if tokenizer is None or text_length is None:
        return {}
    encoder = load_tokenizer(shard.fetch(tokenizer))
    return {"tokens": encode_captions(encoder, captions, text_length).astype(np.int32)}


def pixels(sample: Sample, side: int) -> np.ndarray:
    """The centre square of a sample's picture, uint8 [3, side, side]."""
    return as_planes(to_square(decode(sample.image), side))


def is_held_out(key: str, share: float) -> bool:
    """Whether a sample is of the share that is not trained on: by its key, in whichever shard."""
    number = int.from_bytes(hashlib.sha256(f"held out {key}".encode()).digest()[:8])
    return number < share * 2**64


def first_pictures(
    shards: Iterable[Path], side: int, count: int,
    wanted: Callable[[Sample], bool] = lambda sample: True,
) -> tuple[np.ndarray, tuple[str, ...]]:  # fmt: skip
    """The first pictures, uint8 [n, 3, side, side], with captions; keys are hashes, so any will do.

    Args:
        shards: read one after the other, no more of them than needed.
        side: pixels.
        count: most that are wanted.
        wanted: which samples count.

    Raises:
        PermanentError: if there are none.
    """
    samples = list(islice(filter(wanted, _samples(shards)), count))
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
