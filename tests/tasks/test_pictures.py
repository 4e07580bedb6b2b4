"""Decoding: every kind of image gives the right pixels, every broken one its reason."""

import contextlib
import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from infra.demo_web import files
from infra.demo_web.drawing import random_pairs
from schemas.records import DropReason
from tasks.pictures import Undecodable, decode, to_square

PICTURE = next(random_pairs(1, seed=8)).picture


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(content, **options):
    with pytest.raises(Undecodable) as caught:
        decode(content, **options)
    assert caught.value.detail
    return caught.value.reason


def difference(content, expected=PICTURE):
    found = decode(content)
    assert (found.mode, found.size) == ("RGB", expected.size)
    return np.abs(np.asarray(found, float) - np.asarray(expected, float)).mean()


@pytest.mark.parametrize("way", files.ODD_WAYS)
def test_odd_formats_give_the_picture(way):
    assert difference(files.odd(PICTURE, way).content) < 5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95}), ("JPEG", {"quality": 95, "progressive": True}),
    ],
)  # fmt: skip
def test_usual_formats_give_the_picture(kind, options):
    assert difference(saved(PICTURE, kind, **options)) < 4


def test_transparency_lies_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((1, 0), 1)

    assert list(np.asarray(decode(saved(image, "PNG")))[0, :, 0]) == [255, 127]
    found = np.asarray(decode(saved(palette, "PNG", transparency=0)))
    assert found[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_sixteen_bit_greys_keep_their_range():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, 0)

    found = np.asarray(decode(saved(Image.fromarray(ramp), "PNG")))[0, :, 0]
    assert np.abs(found.astype(int) - ramp[0] // 257).max() <= 1


def test_one_bit_and_grey_pictures_are_rgb():
    for mode in ("1", "L", "LA"):
        assert decode(saved(PICTURE.convert(mode), "PNG")).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(orientation):
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste((255, 0, 0), (0, 0, 10, 10))
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(stored, "JPEG", quality=95, subsampling=0, exif=exif)

    assert difference(content, upright) < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_file_is_told(kind):
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    content = saved(noise, kind)

    found = reason(content[: len(content) // 2])
    assert found in (DropReason.TRUNCATED, DropReason.UNDECODABLE)
    if kind in ("JPEG", "PNG", "WEBP"):
        assert found is DropReason.TRUNCATED


@pytest.mark.parametrize(
    "content",
    [b"", b"<html></html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x04\0\0\0WEBP",
     b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a"],
)  # fmt: skip
def test_what_is_no_image_is_undecodable(content):
    assert reason(content) in (DropReason.UNDECODABLE, DropReason.TRUNCATED)


def test_details_are_the_same_in_every_run():
    details = set()
    for _ in range(2):
        with pytest.raises(Undecodable) as caught:
            decode(b"no image at all")
        details.add(caught.value.detail)
    assert details == {"cannot identify image file"}


def test_bombs_are_refused_before_a_pixel_is_made():
    bomb = files.bomb(random.Random(0)).content
    tracemalloc.start()
    assert reason(bomb) is DropReason.BOMB
    assert reason(_png_that_declares(300_000, 300_000)) is DropReason.BOMB
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def _png_that_declares(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data]
        parts.append(struct.pack(">I", zlib.crc32(name + data)))
    return b"".join(parts)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_random_damage_gives_a_picture_or_a_reason(kind):
    content = saved(PICTURE, kind)
    for seed in range(120):
        rng = random.Random(seed)
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(Undecodable):  # and nothing else
            assert decode(bytes(damaged)).mode == "RGB"


def test_the_square_is_the_middle_of_the_picture():
    wide = Image.new("RGB", (90, 30), "white")
    wide.paste((255, 0, 0), (30, 0, 60, 30))

    square = to_square(wide, 10)
    assert square.size == (10, 10)
    assert square.getcolors() == [(100, (255, 0, 0))]
