"""What the second demo site says, on which catch rates are measured and nothing is tuned."""

from __future__ import annotations

import random

from infra.demo_web.dialect import Dialect, Hosts
from infra.demo_web.languages import SECOND_LANGUAGES
from schemas.scene import Scene, Thing

HOSTS = Hosts(
    pages=("http://scrapbook.test", "https://forum.easel.test"),
    images=("https://static.easel.test", "http://uploads.scrapbook.test"),
    forbidding=(
        ("http://uploads.scrapbook.test", "/family/"),
        ("https://static.easel.test", "/drafts/"),
    ),
    closed="keepout.test",
    broken="unsteady.test",
    busy="https://crowded.test",
    tracker="https://pixel.metrics.test",
)

_SHAPES = {
    "circle": ("circle", "disc", "round dot"),
    "square": ("square", "box", "square tile"),
    "triangle": ("triangle", "pyramid shape", "triangle"),
    "cross": ("cross", "plus sign", "cross"),
}
_COLOURS = {
    "red": ("red", "crimson", "bright red"),
    "green": ("green", "leafy green", "green"),
    "blue": ("blue", "royal blue", "deep blue"),
    "yellow": ("yellow", "lemon yellow", "golden yellow"),
    "purple": ("purple", "violet", "purple"),
    "cyan": ("cyan", "turquoise", "light blue"),
}
_SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_BACKGROUNDS = {"white": "white paper", "black": "a black wall", "grey": "grey cardboard"}

_ONE = (
    "Here you can see a {size} {colour} {shape} painted on {bg}",
    "My daughter drew this {size} {shape}. It is {colour} and sits on {bg}.",
    "{shape} number one: {size}, {colour}, on {bg}",
    "Just a {size} {colour} {shape} against {bg}, nothing else",
    "The {shape} in this picture is {colour} and quite {size}; behind it is {bg}",
    "What a lovely {size} {colour} {shape} that somebody left on {bg}!",
    "We cut a {size} {shape} out of {colour} felt and glued it to {bg}",
)
_TWO = (
    "We see a {first} and {opposite} of it a {second}, both on {bg}",
    "Two figures on {bg}: the {first} is {where} of the {second}",
    "My son put a {first} {where} of a {second} on {bg}.",
    "The {second} has a {first} {where} of it, drawn on {bg}",
    "A {first} has a {second} {opposite} of it; the background is {bg}",
)
_WHERE = {"left of": ("to the left", "to the right"), "above": ("to the north", "to the south")}

_BOILERPLATE = (
    "Taken {date} {time}",
    "Captured on {date} with my phone",
    "Shot on the {date}",
    "{date}",
    "P101{number}",
    "PXL_{stamp}.jpg",
    "WhatsApp Image {date} at {seconds}.jpeg",
    "Scan{number}.tif",
    "MVI_{number}.THM",
    "DCIM/100CANON/IMG_{number}.CR2",
    "photo-{number}-{n}.webp",
    "Courtesy of {name}",
    "© {name} / {year}",
    "(c) {year} {name} Photography",
    "Credit: {name}",
    "Uploaded by {name} {n} weeks ago",
    "Tap to zoom",
    "Swipe for more photos",
    "View full size",
    "Buy this print",
    "Figure {n}",
    "Slide {n}/60",
    "Attachment {number}",
    "avatar of {name}",
    "Sorry, this picture is not available at the moment",
    "default image",
    "No caption",
    "Enlarge this photo ({width}x{height})",
    "Add to favourites",
    "Pin it",
)


def caption(rng: random.Random, scene: Scene) -> str:
    """The scene in words that the first site does not use."""
    bg = _BACKGROUNDS[scene.background]
    if len(scene.things) == 1:
        thing = scene.things[0]
        assert thing.size is not None
        text = rng.choice(_ONE).format(
            size=rng.choice(_SIZES[thing.size]),
            colour=rng.choice(_COLOURS[thing.colour]),
            shape=rng.choice(_SHAPES[thing.shape]),
            bg=bg,
        )
        return text[0].upper() + text[1:]
    assert scene.relation is not None
    first, second = (_named(rng, thing) for thing in scene.things)
    where, opposite = _WHERE[scene.relation]
    return rng.choice(_TWO).format(
        first=first, second=second, where=where, opposite=opposite, bg=bg
    )


def file_name(rng: random.Random, number: int) -> str:
    """A name as a camera, a phone or a person gives it."""
    day = f"2019{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    return rng.choice(
        (f"P{number:07d}", f"{day}-{number}", f"my%20picture%20{number}", f"{number:x}")
    )


def _named(rng: random.Random, thing: Thing) -> str:
    return f"{rng.choice(_COLOURS[thing.colour])} {rng.choice(_SHAPES[thing.shape])}"


SECOND = Dialect(
    hosts=HOSTS,
    title="Easel and scrapbook",
    caption=caption,
    languages=SECOND_LANGUAGES,
    boilerplate=_BOILERPLATE,
    advertisement=(
        "Flights to the sun from {n} pounds, book before {date}",
        "Doctors hate this one weird trick for cleaning your brushes",
        "Meet other painters near you, join for free",
    ),
    short=("ok", "me", "?", "{n}", "foto", "...", "#{n}"),
    prose=(
        "I have been scanning the old folders again, so here goes.",
        "Somebody asked for these in the other thread.",
        "Rainy day, glue, scissors, and this is what came out of it!",
        "Please do not hotlink; ask first (since {date}).",
    ),
    dates=("%d.%m.%Y", "%a %d %b %y", "%m-%d-%y", "%d. %b. %Y", "%y%m%d", "%Y/%m/%d"),
    folders=("u/{n}", "wp-content/uploads/{year}/{n}", "attachments", "albums/a-{n}", "t/{year}"),
    file_name=file_name,
    banners=((970, 250), (88, 31), (160, 600), (320, 100), (970, 90)),
    names=("Reuters", "Kim Nguyen", "getty", "user_77", "O. Fernandez", "AFP"),
)
