"""Encode pairs for the prior: captions as tokens, pictures as codes (DALL-E, section 2.2).

A unit is `codes-*.safetensors` with a row for each pair, in key order:

    tokens          int32 [N, L]        the caption, -1 after its last token
    codes           int32 [N, V, h, w]  the likeliest codes of V crops, without gumbel noise
    token_variants  int32 [N, T, L]     the caption split with BPE dropout, if T > 0

and the keys in its metadata (`keys`, JSON). The first crop is the whole centred square; the others
are those of appendix B: a square whose offset lies in the middle quarter of what can be chosen,
resized by area to t in [R, min(s, 9/8·R)], and of that a random R x R crop, never flipped. Every
draw is a function of seed, key and the number of the variant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from safetensors.numpy import save_file
from torch import Tensor

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.work import ShardWork, Work
from model_zoo.weights import load_network, read_header
from schemas.artifact import CodeShards, ImageShards, ImageTokenizer, TextTokenizer, Unit
from schemas.stage import stage
from tasks.bpe_dropout import DropoutEncoder
from tasks.devices import best_device, steady_threads
from tasks.networks import NetworkParams
from tasks.pictures import decode, to_square
from tasks.tokens import PADDING, encode_captions, load_tokenizer

_BATCH = 64  # pairs in memory at a time


class EncodeParams(NetworkParams):
    """How many ways each pair is encoded.

    Attributes:
        text_length: tokens of a caption at most; longer captions are cut.
        crops: of each picture.
        caption_variants: of each caption with dropout, beside the plain one.
        dropout: the probability with which a merge is left out in those.
        seed: of crops and dropout.
    """

    networks: tuple[str, ...] = ("dvae",)
    text_length: int = Field(default=256, ge=1)
    crops: int = Field(default=1, ge=1)
    caption_variants: int = Field(default=0, ge=0)
    dropout: float = Field(default=0.1, ge=0, le=1)
    seed: int = Field(default=0, ge=0)


@stage(retries=2, cores=1, memory_gb=2.0, versions=("torch", "tokenizers", "pillow"))
def encode_pairs(
    images: ImageShards,
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    params: EncodeParams,
    work: Work,
) -> CodeShards:
    """Encode every pair."""
    params.check(work.fetch(image_tokenizer.units[0]))
    mapped = work.map(
        encode_shard,
        images.units,
        text_tokenizer=text_tokenizer.units[0],
        image_tokenizer=image_tokenizer.units[0],
        params=params,
    )
    codes = CodeShards(units=mapped.units("codes"))
    if not codes.records:
        raise PermanentError("images: there is not one pair to encode")
    return codes


def encode_shard(
    unit: Unit,
    shard: ShardWork,
    *,
    text_tokenizer: Unit,
    image_tokenizer: Unit,
    params: EncodeParams,
) -> None:
    """Encode one shard; nothing comes of one without pairs."""
    encoder = PairEncoder(shard.fetch(text_tokenizer), shard.fetch(image_tokenizer), params)
    samples = read_shard(shard.fetch(unit))
    keys, parts = list[str](), list[dict[str, np.ndarray]]()
    with steady_threads():
        while batch := list(islice(samples, _BATCH)):
            keys += [sample.key for sample in batch]
            parts.append(encoder.encode(batch))
    if not parts:
        return
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    path = shard.scratch / f"codes-{Path(unit.name).stem}.safetensors"
    save_file(arrays, path, metadata={"keys": json.dumps(keys)})
    shard.add("codes", path, path.name, len(keys))


class PairEncoder:
    """A text tokenizer and an image tokenizer, and how to use them."""

    def __init__(self, text_tokenizer: Path, image_tokenizer: Path, params: EncodeParams) -> None:
        self.params = params
        self.tokenizer = load_tokenizer(text_tokenizer)
        self.dropout = DropoutEncoder(self.tokenizer, params.dropout)
        self.device = best_device()
        self.network = load_network(image_tokenizer, self.device)
        self.side = int(read_header(image_tokenizer)[1]["resolution"])

    def encode(self, samples: list[Sample]) -> dict[str, np.ndarray]:
        """The arrays of some pairs."""
        captions = [sample.caption for sample in samples]
        tokens = encode_captions(self.tokenizer, captions, self.params.text_length)
        found = {"tokens": tokens.astype(np.int32), "codes": self._codes(samples)}
        if self.params.caption_variants:
            found["token_variants"] = np.stack([self._variants(sample) for sample in samples])
        return found

    def _codes(self, samples: list[Sample]) -> np.ndarray:
        """int32 [N, V, h, w]."""
        crops = [crop for sample in samples for crop in self._crops(sample)]
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        batches = pixels.split(_BATCH)
        codes = torch.cat([self._codes_of(batch) for batch in batches])
        found = codes.unflatten(0, (len(samples), self.params.crops))
        return np.ascontiguousarray(found.numpy().astype(np.int32))

    def _codes_of(self, pixels: Tensor) -> Tensor:
        codes: Tensor = self.network.codes(pixels.to(self.device).float())  # type: ignore[operator]
        return codes.cpu()

    def _crops(self, sample: Sample) -> Iterator[np.ndarray]:
        """uint8 [side, side, 3] each."""
        picture = decode(sample.image)
        yield np.asarray(to_square(picture, self.side))
        for number in range(1, self.params.crops):
            random = _random(self.params.seed, sample.key, "crop", number)
            yield np.asarray(random_crop(picture, self.side, random))

    def _variants(self, sample: Sample) -> np.ndarray:
        """int32 [T, L]."""
        shape = (self.params.caption_variants, self.params.text_length)
        rows = np.full(shape, PADDING, dtype=np.int32)
        for number, row in enumerate(rows):
            random = _random(self.params.seed, sample.key, "caption", number)
            ids = self.dropout.encode(sample.caption, random)[: self.params.text_length]
            row[: len(ids)] = ids
        return rows


def random_crop(picture: Image.Image, side: int, random: np.random.Generator) -> Image.Image:
    """A crop of `side` pixels as in training the transformer (appendix B)."""
    short = min(picture.size)
    left, top = (random.uniform(3 / 8, 5 / 8) * (length - short) for length in picture.size)
    largest = max(side, min(short, side * 9 // 8))
    target = int(random.integers(side, largest + 1))
    across, down = random.integers(0, target - side + 1, size=2)
    # Resizing and cutting at once: the box is the crop's place in the picture's own pixels.
    scale = short / target
    box = (left + across * scale, top + down * scale)
    return picture.resize(
        (side, side), Image.Resampling.BOX, box=(*box, box[0] + side * scale, box[1] + side * scale)
    )


def _random(seed: int, key: str, purpose: str, number: int) -> np.random.Generator:
    purposes = {"crop": 0, "caption": 1}
    return np.random.default_rng([seed, int(key, 16), purposes[purpose], number])
