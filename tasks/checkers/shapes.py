"""Reads from a picture's pixels which scene it shows, and compares that with the scene asked for.

Nothing here is learnt, and nothing is shared with the code that draws: the background is the
border's colour, a thing is a connected region that differs from it, its colour is the nearest
named colour of its core, and its shape is the template that the region is most like, once moved and
scaled to the template's centre and area. Coverage is soft (a pixel may be half a thing), so that
the reading bears the blur of a discrete VAE.

Pictures are averaged down to 32x32 before they are read. A region that is like no template, or a
colour that is like no named one, is read as None and is never right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from schemas.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Rgb, Scene

SIDE = 32

# Farthest a colour may be from the named one (RGB distance), about half the way to the next name.
FARTHEST_COLOUR = 85.0
FARTHEST_BACKGROUND = 60.0

# A pixel is looked at when it differs so much from the background; named colours differ by over 95.
FOREGROUND = 40.0
# Regions smaller than this share of the picture are specks; the smallest thing covers 0.06.
SPECK = 0.012
# A region this much longer than wide is two things that blur has joined (a pair's is 2.2).
ELONGATED = 1.55
# Correlation with the best template below which a region has no shape.
LEAST_LIKENESS = 0.92

# Templates live on a grid of GRID x GRID points that spans SPAN times the root of the area.
GRID, SPAN = 28, 2.1


@dataclass(frozen=True)
class SeenThing:
    """One thing read from a picture; centre and diameter are shares of the side."""

    colour: str | None
    shape: str | None
    x: float
    y: float
    diameter: float

    @property
    def size(self) -> str:
        """The size word whose diameter is nearer, by ratio."""
        return min(SIZES, key=lambda word: abs(math.log(self.diameter / SIZES[word])))


@dataclass(frozen=True)
class Reading:
    """What a picture shows: its background and its things, any number of them."""

    background: str | None
    things: tuple[SeenThing, ...]


@dataclass(frozen=True)
class Verdict:
    """Which parts of the scene asked for are in the picture.

    `size` is None for a pair and `relation` for one thing, which do not ask for them. `right` is
    colour, shape, and size or relation together; the background is judged apart from it.
    """

    background: bool
    colour: bool
    shape: bool
    size: bool | None
    relation: bool | None

    @property
    def right(self) -> bool:
        """Everything that was asked of the things is there."""
        return self.colour and self.shape and self.size is not False and self.relation is not False


def check(picture: Image.Image | np.ndarray, scene: Scene) -> Verdict:
    """The verdict on one picture (RGB, square, 32x32 or a multiple of it)."""
    return judge(read(picture), scene)


def check_many(pictures: np.ndarray, scenes: Sequence[Scene]) -> list[Verdict]:
    """The verdicts on uint8 pictures (N, S, S, 3), one scene each."""
    readings = read_many(pictures)
    return [judge(reading, scene) for reading, scene in zip(readings, scenes, strict=True)]


def read(picture: Image.Image | np.ndarray) -> Reading:
    """What one picture shows."""
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture.convert("RGB"))
    return read_many(picture[None])[0]


def read_many(pictures: np.ndarray) -> list[Reading]:
    """What each of the uint8 pictures (N, S, S, 3) shows; S is a multiple of 32.

    Raises:
        ValueError: for another shape or type.
    """
    pixels = _averaged(pictures)
    border = _border_colour(pixels)
    difference = pixels - border[:, None, None, :]
    distance = np.sqrt((difference**2).sum(-1))
    regions = [_regions(one) for one in distance]
    owner = np.array([i for i, masks in enumerate(regions) for _ in masks], dtype=int)
    if len(owner) == 0:
        return [Reading(_name(colour, BACKGROUNDS, FARTHEST_BACKGROUND), ()) for colour in border]
    masks = np.array([mask for found in regions for mask in found])
    things = _things(difference[owner], distance[owner], masks, border[owner])
    readings = []
    for index, colour in enumerate(border):
        mine = tuple(things[i] for i in np.flatnonzero(owner == index))
        readings.append(Reading(_name(colour, BACKGROUNDS, FARTHEST_BACKGROUND), mine))
    return readings


def judge(reading: Reading, scene: Scene) -> Verdict:
    """Compare a reading with the scene asked for; a wrong number of things is wrong altogether."""
    asked, background = scene.things, reading.background == scene.background
    paired = len(asked) == 2
    if len(reading.things) != len(asked):
        return Verdict(
            background, False, False, None if paired else False, False if paired else None
        )
    orders = [reading.things, reading.things[::-1]][: len(asked)]
    # Two things are matched to the two asked for in the order that makes more of them right.
    seen = max(
        orders, key=lambda order: (_same(order, scene, "colour"), _same(order, scene, "shape"))
    )
    colour = _same(seen, scene, "colour") == len(asked)
    shape = _same(seen, scene, "shape") == len(asked)
    if paired:
        return Verdict(background, colour, shape, None, _relation(seen) == scene.relation)
    return Verdict(background, colour, shape, seen[0].size == asked[0].size, None)


def _same(seen: Sequence[SeenThing], scene: Scene, field: str) -> int:
    pairs = zip(seen, scene.things, strict=True)
    return sum(getattr(one, field) == getattr(other, field) for one, other in pairs)


def _relation(seen: Sequence[SeenThing]) -> str | None:
    """The first's relation to the second, or None when it is right of it or below it."""
    across, down = seen[1].x - seen[0].x, seen[1].y - seen[0].y
    if abs(across) > abs(down):
        return "left of" if across > 0 else None
    return "above" if down > 0 else None


def _averaged(pictures: np.ndarray) -> np.ndarray:
    """float32 (N, 32, 32, 3): each pixel the mean of those it stands for."""
    shape = pictures.shape
    if len(shape) != 4 or shape[1] != shape[2] or shape[1] % SIDE or shape[3] != 3:
        raise ValueError(f"pictures are (N, S, S, 3) with S a multiple of {SIDE}, not {shape}")
    if pictures.dtype != np.uint8:
        raise ValueError(f"pictures are uint8, 0 to 255, not {pictures.dtype}")
    step = shape[1] // SIDE
    blocks = pictures.astype(np.float32).reshape(shape[0], SIDE, step, SIDE, step, 3)
    return np.asarray(blocks.mean((2, 4)))


def _border_colour(pixels: np.ndarray) -> np.ndarray:
    """(N, 3): the median of the outermost ring, which a thing may touch but never fills."""
    ring = np.ones((SIDE, SIDE), dtype=bool)
    ring[1:-1, 1:-1] = False
    return np.asarray(np.median(pixels[:, ring], axis=1))


def _regions(distance: np.ndarray) -> list[np.ndarray]:
    """The part of the picture (bool 32x32) that belongs to each thing in it.

    Each pixel goes to the nearest region's core, so a region's soft edge stays with it.
    """
    strong = distance > max(FOREGROUND, 0.4 * float(np.quantile(distance, 0.97)))
    labels, count = ndimage.label(strong)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    found = [label for label in range(1, count + 1) if sizes[label] >= SPECK * SIDE * SIDE]
    centres = [np.argwhere(labels == label) for label in found]
    if len(centres) == 1:
        centres = _halves(centres[0])
    if len(centres) == 1:
        return [np.ones((SIDE, SIDE), dtype=bool)]
    if not centres:
        return []
    middles = np.array([points.mean(0) for points in centres])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    squared = (rows - middles[:, 0, None, None]) ** 2 + (columns - middles[:, 1, None, None]) ** 2
    nearest = squared.argmin(0)
    return [nearest == index for index in range(len(middles))]


def _halves(points: np.ndarray) -> list[np.ndarray]:
    """The region (pixels (P, 2)) in two where it is so long that it must be two things."""
    extent = np.ptp(points, axis=0) + 1
    axis = int(extent.argmax())
    if extent[axis] < ELONGATED * extent[1 - axis] or extent[axis] < 0.5 * SIDE:
        return [points]
    low = points[:, axis] < points[:, axis].min() + extent[axis] / 2
    return [points[low], points[~low]]


def _things(
    difference: np.ndarray, distance: np.ndarray, masks: np.ndarray, border: np.ndarray
) -> list[SeenThing]:
    """Read one thing from each region: arrays (M, 32, 32, ...) and the border's colours (M, 3)."""
    inside = np.where(masks, distance, 0.0)
    level = np.quantile(inside.reshape(len(inside), -1), 0.975, axis=1)
    core = inside >= 0.85 * level[:, None, None]
    weight = core / core.sum((1, 2), keepdims=True)
    offset = (difference * weight[..., None]).sum((1, 2))
    along = (difference * offset[:, None, None, :]).sum(-1) / (offset**2).sum(-1)[:, None, None]
    cover = np.where(masks, _stretched(along), 0.0)
    area = np.maximum(cover.sum((1, 2)), 1.0)
    axis = np.arange(SIDE)
    x = (cover.sum(1) * axis).sum(1) / area
    y = (cover.sum(2) * axis).sum(1) / area
    likeness = _likeness(_normalised(cover, x, y, area))
    best = likeness.argmax(1)
    things = []
    for i, kind in enumerate(best):
        shape = SHAPES[kind] if likeness[i, kind] >= LEAST_LIKENESS else None
        diameter = math.sqrt(area[i] / _AREAS[SHAPES[kind]]) / SIDE
        colour = _name(border[i] + offset[i], COLOURS, FARTHEST_COLOUR)
        things.append(SeenThing(colour, shape, (x[i] + 0.5) / SIDE, (y[i] + 0.5) / SIDE, diameter))
    return things


def _name(colour: np.ndarray, names: dict[str, Rgb], farthest: float) -> str | None:
    """The nearest of the names, or None when none is near."""
    distances = {name: float(np.linalg.norm(colour - value)) for name, value in names.items()}
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= farthest else None


def _normalised(cover: np.ndarray, x: np.ndarray, y: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Each coverage moved to its centre and scaled to area 1: (M, GRID, GRID), bilinear."""
    steps = ((np.arange(GRID) + 0.5) / GRID - 0.5) * SPAN
    reach = np.sqrt(area)[:, None] * steps
    rows, columns = y[:, None] + reach, x[:, None] + reach
    padded = np.pad(cover, ((0, 0), (1, 1), (1, 1)))
    rows, columns = (np.clip(v + 1, 0, SIDE + 0.999) for v in (rows, columns))
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r)[:, :, None], (columns - c)[:, None, :]
    picture = np.arange(len(cover))[:, None, None]
    r, c = r[:, :, None], c[:, None, :]
    top = padded[picture, r, c] * (1 - fc) + padded[picture, r, c + 1] * fc
    bottom = padded[picture, r + 1, c] * (1 - fc) + padded[picture, r + 1, c + 1] * fc
    return np.asarray(top * (1 - fr) + bottom * fr)


def _likeness(covers: np.ndarray) -> np.ndarray:
    """(M, 4): correlation with the most alike variant of each shape's template, -1 to 1."""
    unit = _standardised(covers)
    best = [(unit @ variants.T).max(1) for variants in _templates().values()]
    return np.stack(best, axis=1)


def _standardised(covers: np.ndarray) -> np.ndarray:
    """(..., GRID * GRID): mean 0 and length 1, so that a product is a correlation."""
    flat = covers.reshape(*covers.shape[:-2], -1)
    flat = flat - flat.mean(-1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-9))


# Area of a shape of diameter 1.
_AREAS = {"circle": math.pi / 4, "square": 0.81, "triangle": 0.478, "cross": 0.564}


# Blurs of the templates, in grid points; one pixel of a small thing is about 1.5 of them.
_BLURS = (0.6, 1.4, 2.4, 3.4)


@functools.cache
def _templates() -> dict[str, np.ndarray]:
    """For each shape its standardised coverages, (blurs, GRID * GRID), at area 1.

    The blurred ones go through the same stretching as a picture's coverage does.
    """
    fine = 4
    steps = ((np.arange(GRID * fine) + 0.5) / (GRID * fine) - 0.5) * SPAN
    x, y = np.meshgrid(steps, steps)
    templates = {}
    for shape in SHAPES:
        scale = math.sqrt(_AREAS[shape])
        sharp = _inside(shape, x * scale, y * scale).astype(np.float64)
        small = sharp.reshape(GRID, fine, GRID, fine).mean((1, 3))
        blurred = [_stretched(ndimage.gaussian_filter(small, blur)) for blur in _BLURS]
        templates[shape] = _standardised(np.array(blurred))
    return templates


def _stretched(cover: np.ndarray) -> np.ndarray:
    """Coverage with the faintest and the fullest eighth made 0 and 1, against noise."""
    return np.asarray(np.clip((cover - 0.12) / 0.76, 0, 1))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points lie in the shape of diameter 1 around its centre of gravity."""
    if shape == "circle":
        return np.asarray(np.hypot(x, y) < 0.5)
    if shape == "square":
        return np.asarray(np.maximum(abs(x), abs(y)) < 0.45)
    if shape == "cross":
        near, far = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
        return np.asarray((near < 0.17) & (far < 0.5))
    height, half = 0.92, 0.52
    top = -2 / 3 * height
    return np.asarray((y < height / 3) & (y > top) & (abs(x) < half * (y - top) / height))
