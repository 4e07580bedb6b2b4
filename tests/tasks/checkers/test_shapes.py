"""The exact checker: right on drawings, also on blurred and compressed ones, on no others."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from infra.demo_web.drawing import draw, random_pairs
from schemas.scene import COLOURS, Scene, Thing
from tasks.checkers.shapes import check, check_many, judge, read, read_many


@pytest.fixture(scope="module")
def pairs():
    return [*random_pairs(250, seed=11), *random_pairs(100, seed=12, held_out=True)]


def as_array(pictures):
    return np.stack([np.asarray(picture) for picture in pictures])


def halved(picture):
    return picture.resize((32, 32), Image.Resampling.BOX)


def compressed(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return Image.open(buffer).convert("RGB")


def share_right(pictures, pairs):
    verdicts = check_many(pictures, [pair.scene for pair in pairs])
    return np.mean([verdict.right and verdict.background for verdict in verdicts])


def blurred(pairs, sigma):
    pixels = as_array([halved(pair.picture) for pair in pairs]).astype(float)
    return np.clip(ndimage.gaussian_filter(pixels, (0, sigma, sigma, 0)), 0, 255)


def test_drawings_are_read_at_every_size_and_compressed(pairs):
    for change in (lambda p: p, halved, compressed, lambda p: compressed(halved(p))):
        assert share_right(as_array([change(p.picture) for p in pairs]), pairs) >= 0.99


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.3])
def test_blur_of_a_pixel_or_so_does_not_matter(pairs, sigma):
    assert share_right(blurred(pairs, sigma).astype(np.uint8), pairs) >= 0.99


def test_blur_with_smooth_noise_hardly_matters(pairs):
    rng = np.random.default_rng(0)
    pixels = blurred(pairs, 0.9)
    noise = ndimage.gaussian_filter(rng.normal(size=pixels.shape), (0, 1.5, 1.5, 0))
    noisy = np.clip(pixels + 8 * noise / noise.std(), 0, 255).astype(np.uint8)
    assert share_right(noisy, pairs) >= 0.97


def test_another_scene_than_the_one_drawn_is_never_right(pairs):
    pictures = as_array([pair.picture for pair in pairs])
    for seed in range(4):
        others = [pair.scene for pair in pairs]
        random.Random(seed).shuffle(others)
        for verdict, other, pair in zip(check_many(pictures, others), others, pairs, strict=True):
            same = (other.things, other.relation) == (pair.scene.things, pair.scene.relation)
            assert verdict.right == same
            assert verdict.background == (other.background == pair.scene.background)


def test_each_part_of_one_thing_is_judged_apart():
    drawn = Scene("white", (Thing("red", "circle", "small"),))
    picture = draw(drawn, random.Random(1))
    right = check(picture, drawn)
    assert right.right
    assert right.relation is None
    for change, part in (
        (Thing("blue", "circle", "small"), "colour"),
        (Thing("red", "square", "small"), "shape"),
        (Thing("red", "circle", "large"), "size"),
    ):
        verdict = check(picture, Scene("white", (change,)))
        wrong = {name for name in ("colour", "shape", "size") if not getattr(verdict, name)}
        assert wrong == {part}
        assert not verdict.right
    elsewhere = check(picture, Scene("black", drawn.things))
    assert elsewhere.right
    assert not elsewhere.background


def test_each_part_of_a_pair_is_judged_apart():
    first, second = Thing("red", "circle"), Thing("blue", "cross")
    picture = draw(Scene("grey", (first, second), "above"), random.Random(2))

    def verdict(*scene):
        found = check(picture, Scene("grey", *scene))
        return found.colour, found.shape, found.relation

    assert verdict((first, second), "above") == (True, True, True)
    assert verdict((second, first), "above") == (True, True, False)
    assert verdict((first, second), "left of") == (True, True, False)
    assert verdict((Thing("red", "cross"), Thing("blue", "circle")), "above") == (True, False, True)
    assert verdict((Thing("cyan", "circle"), second), "above") == (False, True, True)


def test_the_wrong_number_of_things_is_wrong():
    one = Scene("white", (Thing("red", "circle", "large"),))
    two = Scene("white", (Thing("red", "circle"), Thing("blue", "circle")), "left of")
    assert not check(draw(one, random.Random(0)), two).colour
    assert not check(draw(two, random.Random(0)), one).colour
    blank = np.full((32, 32, 3), 255, np.uint8)
    assert read(blank).things == ()
    assert not check(blank, one).right
    assert check(blank, one).background


def test_what_is_like_no_shape_or_colour_has_none():
    y, x = np.mgrid[:32, :32]
    ring = abs(np.hypot(x - 15.5, y - 15.5) - 9) < 2
    corner = ((abs(y - 15) < 9) & (abs(x - 9) < 3)) | ((abs(y - 22) < 3) & (abs(x - 15) < 9))
    for mask in (ring, corner):
        picture = np.where(mask[..., None], COLOURS["red"], (243, 243, 243)).astype(np.uint8)
        assert [thing.shape for thing in read(picture).things] == [None]
    brown = np.where((np.hypot(x - 15.5, y - 15.5) < 9)[..., None], (90, 60, 20), 243)
    assert [(t.colour, t.shape) for t in read(brown.astype(np.uint8)).things] == [(None, "circle")]


def test_noise_is_hardly_ever_right(pairs):
    noise = np.random.default_rng(0).integers(0, 256, (len(pairs), 32, 32, 3), dtype=np.uint8)
    assert share_right(noise, pairs) == 0


def test_places_and_sizes_are_measured():
    scene = Scene("black", (Thing("yellow", "square"), Thing("green", "cross")), "left of")
    left, right = sorted(read(draw(scene, random.Random(5))).things, key=lambda thing: thing.x)
    assert left.x == pytest.approx(0.25, abs=0.04)
    assert right.x == pytest.approx(0.75, abs=0.04)
    assert left.diameter == pytest.approx(0.4, rel=0.12)
    assert right.diameter == pytest.approx(0.4, rel=0.12)


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((2, 32, 32), np.uint8),
        np.zeros((2, 32, 48, 3), np.uint8),
        np.zeros((2, 40, 40, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(pictures):
    with pytest.raises(ValueError, match="pictures are"):
        read_many(pictures)


def test_no_pictures_give_no_readings():
    assert read_many(np.zeros((0, 32, 32, 3), np.uint8)) == []


def test_one_by_one_and_all_at_once_agree(pairs):
    some = pairs[:40]
    at_once = check_many(as_array([p.picture for p in some]), [p.scene for p in some])
    assert at_once == [check(p.picture, p.scene) for p in some]
    assert at_once == [judge(read(p.picture), p.scene) for p in some]
