"""The scenes of the demo web: what a picture can show, and the words that say so.

A scene has one thing with a size, or two things of different colours with a relation. Captions are
made from a scene in several phrasings, and `parse_caption` reads them back, so that a checker knows
what a prompt asks for. The things in `HELD_OUT` and `HELD_OUT_SIZED` and the pairings of
`pairing_is_held_out` never occur in training captions, though each of their attributes does.

The background words are not colours of things, so a word never has two meanings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

Rgb = tuple[int, int, int]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")

# The closest two colours (green and grey, purple and grey) are 96 apart in RGB.
COLOURS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "purple": (145, 45, 175),
    "cyan": (50, 205, 225),
}
BACKGROUNDS: dict[str, Rgb] = {
    "white": (243, 243, 243),
    "black": (16, 16, 16),
    "grey": (128, 128, 128),
}

# Diameters as a share of the picture's side. Between small and large lies 0.49.
SIZES: dict[str, float] = {"small": 0.36, "large": 0.62}
PAIR_SIZE = 0.40

# The first thing of a scene stands so to the second; the mirrored words only occur in captions.
RELATIONS: tuple[str, ...] = ("left of", "above")
MIRRORED: dict[str, str] = {"left of": "right of", "above": "below"}

# No size of these is ever shown, alone or in a pair.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("red", "triangle"), ("green", "cross"), ("blue", "circle")}
)
# These are never shown alone in this size; the other size is, and pairs have no sizes.
HELD_OUT_SIZED: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("yellow", "square", "large"),
        ("purple", "triangle", "small"),
        ("cyan", "cross", "large"),
        ("red", "circle", "small"),
        ("green", "triangle", "large"),
        ("blue", "square", "small"),
        ("yellow", "cross", "small"),
        ("purple", "circle", "large"),
    }
)


@dataclass(frozen=True)
class Thing:
    """A coloured shape; `size` is None for the things of a pair, which are all of one size."""

    colour: str
    shape: str
    size: str | None = None

    def __post_init__(self) -> None:
        _expect("colour", self.colour, COLOURS)
        _expect("shape", self.shape, SHAPES)
        if self.size is not None:
            _expect("size", self.size, SIZES)

    @property
    def combination(self) -> tuple[str, str]:
        """(colour, shape)."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """One thing with a size, or two things of different colours with a relation.

    Raises:
        ValueError: for a word outside the vocabulary or a combination the grammar does not have.
    """

    background: str
    things: tuple[Thing, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        _expect("background", self.background, BACKGROUNDS)
        if len(self.things) == 1:
            if self.relation is not None or self.things[0].size is None:
                raise ValueError("a scene of one thing has a size and no relation")
        elif len(self.things) == 2:
            _expect("relation", self.relation, RELATIONS)
            if any(thing.size is not None for thing in self.things):
                raise ValueError("the things of a pair have no size")
            if self.things[0].colour == self.things[1].colour:
                raise ValueError(f"the things of a pair differ in colour: {self.things}")
        else:
            raise ValueError(f"a scene has one or two things, not {len(self.things)}")

    def record(self) -> dict[str, Any]:
        """The scene as JSON values; `Scene.of_record` reads it back."""
        return {
            "background": self.background,
            "things": [[thing.colour, thing.shape, thing.size] for thing in self.things],
            "relation": self.relation,
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Scene:
        """The scene that `record()` wrote."""
        things = tuple(Thing(colour, shape, size) for colour, shape, size in record["things"])
        return cls(record["background"], things, record["relation"])


def all_scenes(things: int) -> Iterator[Scene]:
    """Every scene of one thing (144) or of two (2,880), always in the same order."""
    combinations = list(itertools.product(COLOURS, SHAPES))
    if things == 1:
        for (colour, shape), size, background in itertools.product(
            combinations, SIZES, BACKGROUNDS
        ):
            yield Scene(background, (Thing(colour, shape, size),))
        return
    for first, second in itertools.permutations(combinations, 2):
        if first[0] != second[0]:
            for relation, background in itertools.product(RELATIONS, BACKGROUNDS):
                yield Scene(background, (Thing(*first), Thing(*second)), relation)


def is_held_out(scene: Scene) -> bool:
    """Whether the scene must not occur in training."""
    return why_held_out(scene) != ""


def why_held_out(scene: Scene) -> str:
    """What of the scene never occurs in training.

    Returns:
        "combination" (a colour with a shape), "size" (those two in this size), "pairing" (two
        things together), or "" where all of it does occur.
    """
    if any(thing.combination in HELD_OUT for thing in scene.things):
        return "combination"
    if any((*thing.combination, thing.size) in HELD_OUT_SIZED for thing in scene.things):
        return "size"
    return "pairing" if len(scene.things) == 2 and pairing_is_held_out(*scene.things) else ""


def pairing_is_held_out(first: Thing, second: Thing) -> bool:
    """Whether these two never occur together in training, in either order (about one in nine)."""
    return (_number(first) * _number(second)) % 9 == 4


def captions(scene: Scene) -> tuple[str, ...]:
    """The scene in every phrasing, the plainest first; all lower case."""
    if len(scene.things) == 1:
        return _captions_of_one(scene)
    return _captions_of_two(scene)


def parse_caption(text: str) -> Scene | None:
    """The scene that a caption or prompt asks for, or None when it does not say all of one.

    Colours belong to shapes in the order of the words. A relation between the two shapes is read
    from the first to the second ("A left of B"), before or behind them from the second to the
    first ("A with B to its right").
    """
    words = [_SPELLINGS.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
    shapes = [index for index, word in enumerate(words) if word in SHAPES]
    colours = [word for word in words if word in COLOURS]
    sizes = [word for word in words if word in SIZES]
    backgrounds = [word for word in words if word in BACKGROUNDS]
    relations = [index for index, word in enumerate(words) if word in _DIRECTIONS]
    if len(backgrounds) != 1 or len(shapes) != len(colours):
        return None
    if len(shapes) == 1 and len(sizes) == 1 and not relations:
        return Scene(backgrounds[0], (Thing(colours[0], words[shapes[0]], sizes[0]),))
    if len(shapes) != 2 or len(relations) != 1 or sizes or colours[0] == colours[1]:
        return None
    first, second = (Thing(c, words[i]) for c, i in zip(colours, shapes, strict=True))
    relation, mirrored = _DIRECTIONS[words[relations[0]]]
    if mirrored == (shapes[0] < relations[0] < shapes[1]):
        first, second = second, first
    return Scene(backgrounds[0], (first, second), relation)


_SPELLINGS = {"gray": "grey"}

# Direction word: the relation it belongs to, and whether it is that relation's mirror.
_DIRECTIONS: dict[str, tuple[str, bool]] = {
    "left": ("left of", False),
    "right": ("left of", True),
    "above": ("above", False),
    "below": ("above", True),
}

_LONG = {"left of": "to the left of", "right of": "to the right of"}
_BESIDE = {
    "left of": "to its left",
    "right of": "to its right",
    "above": "above it",
    "below": "below it",
}


def _captions_of_one(scene: Scene) -> tuple[str, ...]:
    thing, background = scene.things[0], scene.background
    colour, shape, size = thing.colour, thing.shape, thing.size
    return (
        f"a {size} {colour} {shape} on a {background} background",
        f"{size} {colour} {shape}, {background} background",
        f"a {size} {colour} {shape} on {background}",
        f"this is a {size} {colour} {shape} on a {background} background",
        f"a picture of a {size} {colour} {shape} on {background}",
        f"a {colour} {shape} that is {size}, on a {background} background",
        f"there is a {size} {colour} {shape} on the {background} background",
    )


def _captions_of_two(scene: Scene) -> tuple[str, ...]:
    assert scene.relation is not None
    first, second = (f"{thing.colour} {thing.shape}" for thing in scene.things)
    relation, mirrored = scene.relation, MIRRORED[scene.relation]
    long, long_mirrored = _LONG.get(relation, relation), _LONG.get(mirrored, mirrored)
    background = scene.background
    return (
        f"a {first} {long} a {second} on a {background} background",
        f"a {first} {long} a {second} on {background}",
        f"a {second} {long_mirrored} a {first} on a {background} background",
        f"{first} {relation} {second}, {background} background",
        f"there is a {second} {long_mirrored} a {first} on {background}",
        f"a {first} with a {second} {_BESIDE[mirrored]}, on a {background} background",
        f"a picture of a {first} {relation} a {second} on {background}",
    )


def _number(thing: Thing) -> int:
    """1 to 24 for a thing's (colour, shape)."""
    return list(COLOURS).index(thing.colour) * len(SHAPES) + SHAPES.index(thing.shape) + 1


def _expect(field: str, value: str | None, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(f"{field} {value!r} is not one of {', '.join(known)}")
