"""The images of a site: what each is, what its page says of it, how the server answers for it.

An item depends on the site's seed, its kind and its number only, whatever was made before it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from infra.demo_web import files
from infra.demo_web.dialect import Dialect
from infra.demo_web.kinds import Expected, Kind, Policy
from infra.demo_web.site import Route
from infra.demo_web.subjects import Subject, Subjects
from schemas.scene import Scene

Answer = tuple[Route, bytes]


@dataclass(frozen=True)
class Item:
    """One image of the site.

    Attributes:
        url: absolute, as it will be requested; for REFUSED_SCHEME as it stands in the page.
        place: where the caption stands: "alt", "figcaption", "title", or "" for nowhere.
        language: of a caption that is not English, else "".
        opt_out: how its page forbids AI: noai_header, noai_meta, tdm_header, tdm_meta, or "".
        answers: the routes that the server needs for it, with their bodies.
    """

    kind: Kind
    url: str
    caption: str
    place: str = "alt"
    scene: Scene | None = None
    group: str | None = None
    detail: str = ""
    language: str = ""
    opt_out: str = ""
    policy: Policy = Policy.OPEN
    expected: Expected = Expected.KEPT
    answers: tuple[Answer, ...] = field(default=(), repr=False)


@dataclass
class Maker:
    """What the items of one (kind, number) are made with."""

    dialect: Dialect
    subjects: Subjects
    rng: random.Random
    kind: Kind
    number: int  # unique in the site; it goes into every path
    index: int  # among those of its kind

    def address(self, extension: str, origin: str = "", prefix: str = "") -> tuple[str, str, str]:
        """(origin, host, path) for a new image; on pages' hosts as often as on others."""
        hosts, rng = self.dialect.hosts, self.rng
        origin = origin or rng.choice(hosts.pages if rng.random() < 0.35 else hosts.images)
        folder = self.dialect.fill(rng, self.dialect.folders)
        stem = self.dialect.file_name(rng, self.number)
        path = f"{prefix or '/'}{folder}/{stem}.{extension}"
        if rng.random() < 0.05:
            path = f"{prefix or '/'}{folder}/show.php?name={stem}&type={extension}"
        return origin, origin.partition("://")[2], path

    def item(
        self,
        subject: Subject,
        file: files.File,
        *,
        origin: str = "",
        prefix: str = "",
        detail: str = "",
        group: str | None = None,
        **answer: object,
    ) -> Item:
        """An image with its route; `answer` changes fields of the route."""
        origin, host, path = self.address(file.extension, origin, prefix)
        headers = (("Content-Type", file.media_type),)
        route = replace(Route(host, path, headers=headers), **answer)  # type: ignore[arg-type]
        return Item(
            kind=subject.kind,
            url=origin + path,
            caption=subject.caption,
            place=self.rng.choices(("alt", "figcaption", "title"), (70, 22, 8))[0],
            scene=subject.scene,
            group=group or subject.group,
            detail=detail,
            answers=((route, file.content),),
        )

    def some(self) -> Subject:
        """Any subject as the picture of an item of this maker's kind."""
        return replace(self.subjects.any(self.rng, self.number), kind=Kind.GOOD, group=None)

    def usual(self, subject: Subject | None = None, **fields: object) -> Item:
        """A subject in a usual format."""
        subject = subject or self.some()
        return self.item(subject, files.usual(subject.picture, self.rng), **fields)  # type: ignore[arg-type]
