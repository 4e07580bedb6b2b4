"""What the good pictures of a site show, and what is said of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from infra.demo_web.dialect import Dialect
from infra.demo_web.drawing import draw, random_scene
from infra.demo_web.kinds import Kind
from schemas.scene import Scene

# Most pictures are 64 pixels wide, as the drawings are declared; a few are larger, as on any site.
SIDES = (64,) * 17 + (80, 96, 128)


@dataclass(frozen=True)
class Subject:
    """One picture and what it shows; `group` ties pictures that are variants of one another."""

    picture: Image.Image
    caption: str
    scene: Scene | None = None
    kind: Kind = Kind.GOOD
    group: str | None = None


class Subjects(Protocol):
    """Where a site's pictures come from."""

    def plain(self, rng: random.Random, number: int) -> Subject:
        """The plain good picture number `number`."""
        ...

    def any(self, rng: random.Random, number: int) -> Subject:
        """A picture that is not among the plain ones, for item `number` of the site."""
        ...

    def reworded(self, rng: random.Random, subject: Subject) -> str:
        """Another caption of the same picture."""
        ...


@dataclass(frozen=True)
class SceneSubjects:
    """Scenes, newly drawn each time."""

    dialect: Dialect
    two_things: float

    def plain(self, rng: random.Random, number: int) -> Subject:
        """A new drawing of a scene that is not held out."""
        return self.any(rng, number)

    def any(self, rng: random.Random, number: int) -> Subject:
        """A new drawing of a scene that is not held out."""
        scene = random_scene(rng, self.two_things)
        picture = draw(scene, rng, rng.choice(SIDES))
        return Subject(picture, self.dialect.caption(rng, scene), scene)

    def reworded(self, rng: random.Random, subject: Subject) -> str:
        """The scene in another phrasing."""
        assert subject.scene is not None
        return self.dialect.caption(rng, subject.scene)
