"""How one demo site speaks: its hosts, captions, boilerplate, file names and advertisements.

The first site and the second share the machinery and nothing of what a filter could learn.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from infra.demo_web.languages import Language
from schemas.scene import Scene

Say = Callable[[random.Random], str]


@dataclass(frozen=True)
class Hosts:
    """The hosts of a site, as origins (`https://img.shapes.test`) or, where noted, as names.

    Attributes:
        pages: origins that hold pages, and images beside them.
        images: origins that hold images only.
        forbidding: origins whose robots.txt forbids a part: (origin, path prefix).
        closed: name of the host whose robots.txt forbids everything.
        broken: name of the host whose robots.txt answers 503.
        busy: origin of the images that are throttled or slow.
        tracker: origin of tracking pixels and banners.
    """

    pages: tuple[str, ...]
    images: tuple[str, ...]
    forbidding: tuple[tuple[str, str], ...]
    closed: str
    broken: str
    busy: str
    tracker: str

    def names(self) -> list[str]:
        """All host names, sorted."""
        origins = [*self.pages, *self.images, self.busy, self.tracker]
        origins += [origin for origin, _ in self.forbidding]
        names = {origin.partition("://")[2] for origin in origins} | {self.closed, self.broken}
        return sorted(names)


@dataclass(frozen=True)
class Dialect:
    """What a site says.

    Attributes:
        caption: an English caption of a scene.
        boilerplate, advertisement: templates with the fields of `fill`.
        dates: strftime formats.
        file_name: the stem of an image's name, given its number.
        banners: sizes (width, height) in pixels.
    """

    hosts: Hosts
    title: str
    caption: Callable[[random.Random, Scene], str]
    languages: dict[str, Language]
    boilerplate: tuple[str, ...]
    advertisement: tuple[str, ...]
    short: tuple[str, ...]
    prose: tuple[str, ...]
    dates: tuple[str, ...]
    folders: tuple[str, ...]
    file_name: Callable[[random.Random, int], str]
    banners: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = field(default=())

    def fill(self, rng: random.Random, templates: tuple[str, ...]) -> str:
        """One of the templates with dates, numbers and names put in."""
        moment = datetime(2003, 1, 1) + timedelta(minutes=rng.randrange(10_000_000))
        return rng.choice(templates).format(
            date=moment.strftime(rng.choice(self.dates)),
            time=moment.strftime("%H:%M"),
            seconds=moment.strftime("%H.%M.%S"),
            stamp=moment.strftime("%Y%m%d_%H%M%S"),
            year=moment.year,
            n=rng.randrange(2, 60),
            number=f"{rng.randrange(10_000):04d}",
            name=rng.choice(self.names),
            width=rng.choice((320, 640, 800, 1024, 1920)),
            height=rng.choice((240, 480, 600, 768, 1080)),
        )

    def foreign(self, rng: random.Random, scene: Scene) -> tuple[str, str]:
        """(language code, caption): a scene in one of the site's other languages."""
        code = rng.choice(list(self.languages))
        return code, self.languages[code].caption(rng, scene)
