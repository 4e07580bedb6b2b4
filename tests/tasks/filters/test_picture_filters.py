"""Each picture filter by itself: what it lets through and what it drops."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from infra.demo_web import files
from infra.demo_web.drawing import random_pairs
from schemas.records import DropReason
from tasks.filter_images import FilterImagesParams
from tasks.filters import build_filter
from tasks.pictures import Picture


def reason(spec, picture):
    content = picture if isinstance(picture, bytes) else saved(picture)
    found = build_filter(spec).look(Picture(content))
    return found.reason if found else None


def saved(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(width, height, colour=(200, 30, 30)):
    return Image.new("RGB", (width, height), colour)


@pytest.mark.parametrize(("size", "expected"), [
    ((32, 32), None), ((32, 500), None), ((31, 500), DropReason.TOO_SMALL),
    ((1, 1), DropReason.TOO_SMALL),
])  # fmt: skip
def test_min_size_looks_at_the_shorter_side(size, expected):
    assert reason({"min_size": {"pixels": 32}}, plain(*size)) is expected


@pytest.mark.parametrize(("size", "expected"), [
    ((100, 50), None), ((50, 100), None), ((101, 50), DropReason.ASPECT_RATIO),
    ((50, 101), DropReason.ASPECT_RATIO), ((64, 64), None),
])  # fmt: skip
def test_aspect_ratio_allows_its_bounds(size, expected):
    assert reason({"aspect_ratio": {}}, plain(*size)) is expected


def test_the_size_is_that_of_the_picture_the_right_way_up():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(plain(100, 60), "JPEG", exif=exif)

    assert Picture(turned).width == 60
    assert reason({"aspect_ratio": {"min": 1.0}}, turned) is DropReason.ASPECT_RATIO


def test_bounds_that_no_picture_meets_are_refused():
    with pytest.raises(ValueError, match="min 2.0 is above max 1.0"):
        build_filter({"aspect_ratio": {"min": 2.0, "max": 1.0}})


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (128, 128, 128), (3, 200, 90)])
def test_one_colour_is_blank(colour):
    assert reason({"near_blank": {}}, plain(64, 64, colour)) is DropReason.NEAR_BLANK


def test_noise_and_compression_do_not_make_a_picture():
    noisy = np.random.default_rng(0).normal(200, 5, (64, 64, 3)).clip(0, 255).astype(np.uint8)

    assert reason({"near_blank": {}}, Image.fromarray(noisy)) is DropReason.NEAR_BLANK
    rough = saved(plain(64, 64, (90, 120, 33)), "JPEG", quality=20)
    assert reason({"near_blank": {}}, rough) is DropReason.NEAR_BLANK


def test_a_speck_is_blank_and_a_small_thing_is_not():
    speck, thing = plain(64, 64, (255, 255, 255)), plain(64, 64, (255, 255, 255))
    ImageDraw.Draw(speck).rectangle((30, 30, 33, 33), fill=(0, 0, 0))
    ImageDraw.Draw(thing).ellipse((27, 27, 36, 36), fill=(180, 160, 160))

    assert reason({"near_blank": {}}, speck) is DropReason.NEAR_BLANK
    assert reason({"near_blank": {}}, thing) is None


def test_a_transparent_picture_is_blank():
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))

    assert reason({"near_blank": {}}, clear) is DropReason.NEAR_BLANK


def test_the_demos_drawings_are_not_blank():
    pairs = list(random_pairs(200, seed=3))

    assert [reason({"near_blank": {}}, pair.picture) for pair in pairs] == [None] * 200


def test_animations_are_dropped_or_stand_for_their_first_frame():
    first, second = plain(40, 40), plain(40, 40, (0, 0, 0))
    for extension in ("gif", "webp"):
        content = files.animated(first, second, extension).content
        assert reason({"decodable": {}}, content) is DropReason.ANIMATED
        assert reason({"decodable": {"animated": "first_frame"}}, content) is None
        assert Picture(content).image.getpixel((20, 20)) == pytest.approx((200, 30, 30), abs=8)


def test_a_bomb_is_dropped_by_what_it_declares():
    assert reason({"decodable": {"max_pixels": 999}}, plain(100, 10)) is DropReason.BOMB
    assert reason({"decodable": {"max_pixels": 1000}}, plain(100, 10)) is None


def test_the_decodable_filter_must_come_first():
    with pytest.raises(ValueError, match="first filter is 'min_size', but must be 'decodable'"):
        FilterImagesParams(filters=({"min_size": {}}, {"decodable": {}}))
