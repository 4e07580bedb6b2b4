"""Drawings: where things are, what they cover, and that no two are the same."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from infra.demo_web.drawing import draw, random_pairs, random_scene, shape_mask
from schemas.scene import BACKGROUNDS, COLOURS, Scene, Thing, is_held_out, parse_caption

# Areas in closed form, for diameter 1.
AREAS = {
    "circle": math.pi / 4,
    "square": 0.9**2,
    "triangle": 0.5 * 1.04 * 0.92,
    "cross": 2 * 0.34 - 0.34**2,
}


@pytest.mark.parametrize("shape", AREAS)
@pytest.mark.parametrize("diameter", [0.36, 0.62])
def test_a_shape_covers_what_geometry_says(shape, diameter):
    mask = shape_mask(shape, 0.503, 0.492, diameter, 64)
    assert mask.shape == (64, 64)
    assert mask.min() == 0
    assert mask.max() == 1
    expected = AREAS[shape] * (diameter * 64) ** 2
    assert mask.sum() == pytest.approx(expected, rel=0.05)
    assert 0 < np.mean((mask > 0) & (mask < 1)) < 0.1  # anti-aliased, at the edge only


def test_a_drawing_shows_colour_and_background_where_they_belong():
    scene = Scene("black", (Thing("cyan", "square"), Thing("red", "circle")), "left of")
    for seed in range(20):
        pixels = np.asarray(draw(scene, random.Random(seed))).astype(int)
        for (row, column), colour in {
            (32, 16): COLOURS["cyan"],
            (32, 48): COLOURS["red"],
            (2, 32): BACKGROUNDS["black"],
        }.items():
            assert np.abs(pixels[row, column] - colour).max() <= 12 + 6


def test_the_same_seed_draws_the_same_and_another_does_not():
    scene = Scene("grey", (Thing("green", "circle", "small"),))
    first, again, other = (draw(scene, random.Random(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert draw(scene, random.Random(1), 96).size == (96, 96)


def test_random_pairs_are_deterministic_and_leave_out_what_is_held_out():
    pairs = list(random_pairs(150, seed=3))
    assert [p.caption for p in pairs] == [p.caption for p in random_pairs(150, seed=3)]
    assert not any(is_held_out(p.scene) for p in pairs)
    assert all(parse_caption(p.caption) == p.scene for p in pairs)
    assert all(is_held_out(p.scene) for p in random_pairs(20, seed=3, held_out=True))


def test_the_share_of_scenes_with_two_things_is_as_asked():
    rng = random.Random(0)
    assert {len(random_scene(rng, 0.0).things) for _ in range(50)} == {1}
    assert {len(random_scene(rng, 1.0).things) for _ in range(50)} == {2}
