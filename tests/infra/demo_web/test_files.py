"""Files of the demo site: odd ones show the same picture, broken ones are broken as they claim."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from infra.demo_web import files
from infra.demo_web.drawing import draw
from schemas.scene import Scene, Thing

SCENE = Scene("white", (Thing("red", "circle"), Thing("blue", "cross")), "left of")


@pytest.fixture
def picture():
    return draw(SCENE, random.Random(1))


def opened(file):
    return Image.open(io.BytesIO(file.content))


def difference(file, picture):
    """Mean difference of the picture as a careful reader shows it, in grey levels."""
    shown = ImageOps.exif_transpose(opened(file)).convert("RGB").resize(picture.size)
    return np.abs(np.asarray(shown, float) - np.asarray(picture, float)).mean()


@pytest.mark.parametrize("way", files.ODD_WAYS)
def test_odd_formats_show_the_picture(way, picture):
    if way == "sixteen_bit":
        pytest.importorskip("cv2")
        import cv2

        file = files.odd(picture, way)
        read = cv2.imdecode(np.frombuffer(file.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert read.dtype == np.uint16
        assert np.array_equal(read[..., ::-1] >> 8, np.asarray(picture))
    assert difference(files.odd(picture, way), picture) < 4


def test_odd_formats_are_as_odd_as_they_say(picture):
    found = {way: opened(files.odd(picture, way)) for way in files.ODD_WAYS}
    assert found["cmyk"].mode == "CMYK"
    assert found["palette"].mode == "P"
    assert found["alpha"].mode == "RGBA"
    assert found["rotated"].getexif()[0x0112] == 6
    assert found["progressive"].info.get("progressive")
    # Shown without its turn, "left of" would not be true.
    plain = np.asarray(found["rotated"].convert("RGB"), float)
    assert np.abs(plain - np.asarray(picture, float)).mean() > 10


def test_the_same_chance_makes_the_same_bytes(picture):
    assert files.usual(picture, random.Random(3)) == files.usual(picture, random.Random(3))
    for way in range(3):
        ours, theirs = (files.again(picture, random.Random(3), way) for _ in range(2))
        assert ours == theirs


def test_copies_differ_in_bytes_and_hardly_in_looks(picture):
    for seed in range(12):
        copy = files.again(picture, random.Random(seed), seed)
        assert copy.content != files.usual(picture, random.Random(seed)).content
        # Enlarged and shrunk again, edges differ a little more than by compression.
        assert difference(copy, picture) < 6


def test_a_bomb_is_small_and_unpacks_to_gigabytes():
    bomb = files.bomb(random.Random(0)).content
    assert len(bomb) < 100_000
    width, height = struct.unpack(">II", bomb[16:24])
    assert width * height * 3 > 1.5e9
    start = bomb.index(b"IDAT")
    (size,) = struct.unpack(">I", bomb[start - 4 : start])
    unpacked = zlib.decompress(bomb[start + 4 : start + 4 + size])
    assert len(unpacked) == height * (1 + width // 8)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb))


def test_cut_files_begin_and_do_not_end(picture):
    for seed in range(10):
        file = files.usual(picture, random.Random(seed))
        cut = files.cut(file, random.Random(seed))
        assert file.content.startswith(cut.content)
        with pytest.raises(OSError, match=r"."):
            opened(cut).load()


def test_what_is_no_image_cannot_be_opened():
    for seed in range(40):
        with pytest.raises(OSError, match="cannot identify"):
            opened(files.no_image(random.Random(seed)))


def test_strips_and_banners_are_outside_half_to_double(picture):
    for seed in range(20):
        width, height = opened(files.strip(picture, random.Random(seed))).size
        assert max(width / height, height / width) > 2.2
    assert opened(files.banner((468, 60), random.Random(0))).size == (468, 60)
    assert opened(files.pixel()).size == (1, 1)


def test_animations_have_frames(picture):
    other = draw(SCENE, random.Random(9))
    for extension in ("gif", "webp"):
        assert opened(files.animated(picture, other, extension)).n_frames == 2
