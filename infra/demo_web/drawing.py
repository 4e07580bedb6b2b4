"""Draws the demo's scenes: anti-aliased, each drawing a little different from every other.

Colours, background, place and diameter vary a little from drawing to drawing, and the background
has a faint gradient. So two drawings of one scene differ by more than a re-encoded copy differs
from its original, and near-duplicates in the demo web are never a matter of opinion.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from schemas.scene import (
    BACKGROUNDS,
    COLOURS,
    PAIR_SIZE,
    SIZES,
    Rgb,
    Scene,
    all_scenes,
    captions,
    is_held_out,
)

# A mask is drawn this many times larger and averaged down, which gives 17 levels at an edge.
SUPERSAMPLING = 4

CENTRE_JITTER = 0.06
PAIR_JITTER = (0.025, 0.05)  # along the line between the two, across it
DIAMETER_JITTER = 0.05
COLOUR_JITTER = 12
BACKGROUND_JITTER = 8
GRADIENT = 6.0


class Pair(NamedTuple):
    """A drawn picture, one of its captions, and the scene of both."""

    picture: Image.Image
    caption: str
    scene: Scene


def draw(scene: Scene, rng: random.Random, size: int = 64) -> Image.Image:
    """A new drawing of the scene: RGB, size x size pixels."""
    canvas = _background(BACKGROUNDS[scene.background], rng, size)
    for thing, (x, y, diameter) in zip(scene.things, _places(scene, rng), strict=True):
        colour = _shifted(COLOURS[thing.colour], rng, COLOUR_JITTER)
        mask = shape_mask(thing.shape, x, y, diameter, size)[..., None]
        canvas += mask * (np.array(colour, dtype=np.float32) - canvas)
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def shape_mask(shape: str, x: float, y: float, diameter: float, size: int) -> np.ndarray:
    """How much of each pixel the shape covers: float32 (size, size), 0 to 1.

    Centre and diameter are shares of the side. A square's side and a triangle's height are a little
    under the diameter, so that the four look equally large.
    """
    side = size * SUPERSAMPLING
    image = Image.new("L", (side, side))
    # The pen counts from the middles of pixels, and fills those that it touches.
    pen, radius = ImageDraw.Draw(image), diameter / 2
    if shape == "circle":
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse([value * side - 0.5 for value in box], fill=255)
    else:
        outline = [(x + dx * diameter, y + dy * diameter) for dx, dy in _OUTLINES[shape]]
        pen.polygon([(px * side - 0.5, py * side - 0.5) for px, py in outline], fill=255)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def random_scene(rng: random.Random, two_things: float = 0.55, held_out: bool = False) -> Scene:
    """A scene, all allowed ones of its kind being equally likely.

    Args:
        rng: the source of chance.
        two_things: the share of scenes with two things.
        held_out: whether it shall be one of the held-out scenes, or none of them.
    """
    return rng.choice(_scenes(2 if rng.random() < two_things else 1, held_out))


def random_pairs(
    count: int, seed: int, size: int = 64, two_things: float = 0.55, held_out: bool = False
) -> Iterator[Pair]:
    """`count` pairs as the demo web has them, without a web: the same for the same seed."""
    rng = random.Random(f"pairs/{seed}")
    for _ in range(count):
        scene = random_scene(rng, two_things, held_out)
        yield Pair(draw(scene, rng, size), rng.choice(captions(scene)), scene)


# Outlines around (0, 0) in diameters; a triangle's centre is the middle of its height.
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.45, -0.45), (0.45, -0.45), (0.45, 0.45), (-0.45, 0.45)),
    "triangle": ((0.0, -0.47), (0.52, 0.45), (-0.52, 0.45)),
    "cross": tuple(
        (a * sx, b * sy)
        for sx, sy, flip in ((1, -1, False), (1, 1, True), (-1, 1, False), (-1, -1, True))
        for a, b in (
            ((0.5, 0.17), (0.17, 0.17), (0.17, 0.5))
            if flip
            else ((0.17, 0.5), (0.17, 0.17), (0.5, 0.17))
        )
    ),
}


@functools.cache
def _scenes(things: int, held_out: bool) -> tuple[Scene, ...]:
    return tuple(scene for scene in all_scenes(things) if is_held_out(scene) == held_out)


def _places(scene: Scene, rng: random.Random) -> list[tuple[float, float, float]]:
    """(x, y, diameter) of each thing."""
    if len(scene.things) == 1:
        size = scene.things[0].size
        assert size is not None
        return [(_near(0.5, rng), _near(0.5, rng), _diameter(SIZES[size], rng))]
    along, across = PAIR_JITTER
    places = []
    for middle in (0.25, 0.75):
        position = middle + rng.uniform(-along, along)
        other = 0.5 + rng.uniform(-across, across)
        x, y = (position, other) if scene.relation == "left of" else (other, position)
        places.append((x, y, _diameter(PAIR_SIZE, rng)))
    return places


def _near(value: float, rng: random.Random) -> float:
    return value + rng.uniform(-CENTRE_JITTER, CENTRE_JITTER)


def _diameter(value: float, rng: random.Random) -> float:
    return value * (1 + rng.uniform(-DIAMETER_JITTER, DIAMETER_JITTER))


def _background(colour: Rgb, rng: random.Random, size: int) -> np.ndarray:
    """float32 (size, size, 3): the shifted colour with a faint gradient in some direction."""
    angle = rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(0, GRADIENT)
    ramp = np.linspace(-slope, slope, size, dtype=np.float32)
    plane = ramp[None, :] * math.cos(angle) + ramp[:, None] * math.sin(angle)
    base = np.array(_shifted(colour, rng, BACKGROUND_JITTER), dtype=np.float32)
    return np.asarray(base + plane[..., None], dtype=np.float32)


def _shifted(colour: Rgb, rng: random.Random, jitter: int) -> Rgb:
    red, green, blue = (min(255, max(0, c + rng.randint(-jitter, jitter))) for c in colour)
    return red, green, blue
