"""What the first demo site says."""

from __future__ import annotations

import random

from infra.demo_web.dialect import Dialect, Hosts
from infra.demo_web.languages import FIRST_LANGUAGES
from schemas.scene import Scene, captions

HOSTS = Hosts(
    pages=("http://shapes.test", "https://www.shapes.test", "http://gallery.test"),
    images=("https://img.shapes.test", "http://cdn.gallery.test", "https://media.drawings.test"),
    forbidding=(("http://gallery.test", "/members/"), ("https://img.shapes.test", "/private/")),
    closed="closed.test",
    broken="broken.test",
    busy="http://busy.test",
    tracker="http://track.adverts.test",
)

_BOILERPLATE = (
    "Photographed on {date}",
    "photographed {date} at {time}",
    "Photo taken on {date}",
    "Image uploaded on {date} at {time}",
    "Picture from {date}, {time}",
    "Stock photo © {year} All rights reserved",
    "Copyright {year} by {name}. All rights reserved.",
    "Click to enlarge the image",
    "Click here to view larger image",
    "IMG_{number}.JPG",
    "IMG_{number}",
    "DSC0{number}.jpg",
    "DSCN{number}",
    "Screenshot {date} at {seconds}",
    "image {n} of 60",
    "Image {n}",
    "Untitled image",
    "Thumbnail for version as of {time}, {date}",
    "Share this image on Facebook",
    "Posted by {name} on {date}",
    "Photo by {name}",
    "Photo: {name}",
    "Image may be subject to copyright",
    "No description available",
    "image placeholder",
    "Loading image, please wait",
    "Download this image ({width} x {height} pixels)",
    "Preview of this file: {width} × {height} pixels",
    "image-{number}.png",
    "{number}_thumb.jpg",
    "Site logo",
    "Profile picture of {name}",
)


def caption(rng: random.Random, scene: Scene) -> str:
    """The scene in one of its phrasings, spelled as people do: capitals, full stops, dashes."""
    text = rng.choice(captions(scene))
    if rng.random() < 0.05:
        text = text.replace(", ", " – ")
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.2 else text


def file_name(rng: random.Random, number: int) -> str:
    """A name as a content management system gives it."""
    return rng.choice((f"scene-{number}", f"{number:06d}", f"pic_{number}", f"drawing{number}"))


FIRST = Dialect(
    hosts=HOSTS,
    title="Simple scenes",
    caption=caption,
    languages=FIRST_LANGUAGES,
    boilerplate=_BOILERPLATE,
    advertisement=(
        "Buy the best coloured pencils at half the price today",
        "Subscribe to our newsletter and save {n} percent",
        "Your advertisement could be here, call us now",
    ),
    short=("pic", "img", "-", "photo", "1", "x", "pic {n}", "."),
    prose=(
        "These drawings were made by our visitors.",
        "Every week we add a few more pictures to the collection.",
        "Send us your own drawing and we will show it here.",
        "All pictures on this page may be looked at for as long as you like.",
        "The gallery was last tidied on {date}.",
    ),
    dates=("%d %B %Y", "%B %d, %Y", "%Y-%m-%d", "%d/%m/%Y", "%b %d, %Y"),
    folders=("images", "pictures/{year}", "media/g{n}", "assets/img", "files"),
    file_name=file_name,
    banners=((468, 60), (728, 90), (320, 50), (120, 600)),
    names=("John Smith", "Mary Brown", "P. Johnson", "Anna Clark", "David Lee"),
)
