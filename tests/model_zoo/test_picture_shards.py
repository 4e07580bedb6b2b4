"""Pictures read from shards are those that are prepared beforehand, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from infra.demo_web import files
from infra.demo_web.drawing import random_pairs
from infra.shards import Sample
from infra.work import Work
from model_zoo.crops import CropConfig, PictureFiles
from model_zoo.picture_shards import PictureShard
from model_zoo.pictures import MAX_PIXELS, square_pixels
from schemas.artifact import ImageShards
from tasks.prepared import Loading, pixels, prepare
from tests.tasks.image_shards import add_samples, make_sample, saved
from tests.tasks.tiny_models import TEXT_LENGTH, add_text_tokenizer

SIDE = 20


def _contents() -> list[bytes]:
    """Pictures of all kinds, none of them square."""
    pairs = list(random_pairs(len(files.ODD_WAYS) + 4, seed=4))
    pictures = [pair.picture.resize((70 - index, 41)) for index, pair in enumerate(pairs)]
    odd = [files.odd(one, way).content for one, way in zip(pictures, files.ODD_WAYS, strict=False)]
    turned = Image.Exif()
    turned[0x0112] = 6
    rest = pictures[len(odd) :]
    return [
        *odd, saved(rest[0], "JPEG", exif=turned), saved(rest[1], "WEBP"), saved(rest[2], "PNG"),
        saved(rest[3], "GIF", save_all=True, append_images=[rest[0]]),
    ]  # fmt: skip


def _images(work: Work) -> ImageShards:
    samples = [make_sample(f"{n}", content, f"a {n}") for n, content in enumerate(_contents())]
    return add_samples(work, samples, shards=2)


def _dataset(paths: list[Path], seed: int = 5) -> PictureFiles:
    return PictureFiles(paths, seed, 16, CropConfig(smallest=1, largest=1.25), ("tokens",))


@pytest.mark.parametrize("number", range(len(_contents())))
def test_every_kind_of_picture_has_the_same_pixels(number: int) -> None:
    content = _contents()[number]
    expected = pixels(Sample("0" * 32, content, "png", ""), SIDE)
    np.testing.assert_array_equal(square_pixels(content, SIDE), expected)


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_batches_are_the_same_in_any_epoch_and_however_they_are_shared_out(
    tmp_path: Path, held_out: float
) -> None:
    work = Work.local(tmp_path)
    images, texts = _images(work), add_text_tokenizer(work)

    def ready(pictures: Loading) -> list[Path]:
        return prepare(images, SIDE, work, texts, TEXT_LENGTH, held_out=held_out, pictures=pictures)

    prepared, indexed = _dataset(ready("prepared")), _dataset(ready("shards"))
    assert len(indexed) == len(prepared) <= len(_contents())
    assert (len(prepared) < len(_contents())) == bool(held_out)
    order = np.random.default_rng(1).permutation(len(prepared))
    for epoch in (0, 3):
        expected = prepared.batch(order, epoch)
        assert len(torch.unique(expected["images"], dim=0)) == len(order)
        for parts in (1, 2, 3):
            found = [indexed.batch(part, epoch) for part in np.array_split(order, parts)]
            for name, rows in expected.items():
                assert torch.equal(torch.cat([part[name] for part in found]), rows)


def test_no_file_stays_open(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    paths = prepare(_images(work), SIDE, work, pictures="shards")
    shard = PictureShard(*paths[:2])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        shard.image(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_decoded_is_said_with_its_place_and_a_way_out(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    images = add_samples(work, [make_sample("x", b"\x89PNG is not a picture")])
    paths = prepare(images, SIDE, work, pictures="shards")
    words = "images-00000.tar, byte 1536: a picture of 21 bytes: cannot identify image file; drop"
    with pytest.raises(ValueError, match=words):
        PictureFiles(paths, 0, 16, CropConfig()).batch(np.array([0]), 0)


def test_a_picture_that_declares_too_many_pixels_is_not_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ValueError, match=f"it declares {side}x{side} pixels"):
        square_pixels(saved(Image.new("1", (side, side)), "PNG"), SIDE)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    shard, index, other, *_ = prepare(_images(work), SIDE, work, pictures="shards")
    with pytest.raises(ValueError, match="is a shard without an index after it"):
        PictureFiles([shard, index, other], 0, 16, CropConfig())
    small = tmp_path / "small.tar"
    small.write_bytes(bytes(1024))
    with pytest.raises(ValueError, match=r"small.tar has 1024; they do not belong together"):
        PictureFiles([small, index], 0, 16, CropConfig())
    save_file({"images": np.zeros((1, 3, 4, 4), np.uint8)}, tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match=r"no.safetensors: no index.*\['images'\]"):
        PictureFiles([shard, tmp_path / "no.safetensors"], 0, 16, CropConfig())
    with pytest.raises(ValueError, match=r"lacks tokens; it holds \['offsets', 'sizes'\]"):
        _dataset([shard, index])
