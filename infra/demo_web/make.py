"""Makes a demo site on disk: WARC files of its pages, what its server needs, and the truth.

pages-00.warc.gz …    the crawl, to be collected
truth.jsonl           what each image is and what should become of it
prompts.json          what a model trained on it is asked
site.json, routes.jsonl, bodies.bin    for the server
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.demo_web.dialect import Dialect
from infra.demo_web.emoji import DEFAULT_FONT, EmojiSubjects, read_glyphs
from infra.demo_web.emoji_words import EMOJI
from infra.demo_web.first_words import FIRST
from infra.demo_web.items import Answer, Item, Maker
from infra.demo_web.kinds import Kind, amounts
from infra.demo_web.pages import WebPage, lay_out, make_page
from infra.demo_web.prompts import Prompt, scene_prompts, write_prompts
from infra.demo_web.robots import robots_answers
from infra.demo_web.second_words import SECOND
from infra.demo_web.site import Route, write_site
from infra.demo_web.subjects import SceneSubjects, Subjects
from infra.demo_web.truth import TruthRow, write_truth
from infra.demo_web.varieties import make_items
from infra.demo_web.warc import write_warc

VARIANTS = ("shapes", "second", "emoji")
DEFAULT_PAGES = {"shapes": 3000, "second": 1000}
GOOD_PER_PAGE = 2
PAGES_PER_FILE = 400
# Emoji are few and each is there once: dirt among them is a sample of the kinds, not a share.
EMOJI_DIRT = 0.4


@dataclass(frozen=True)
class SiteSummary:
    """What was made: numbers of pages, of WARC files, and of images by kind."""

    folder: Path
    pages: int
    files: int
    images: dict[Kind, int]


@dataclass(frozen=True)
class _Plan:
    dialect: Dialect
    subjects: Subjects
    counts: dict[Kind, int]
    prompts: dict[str, list[Prompt]]


def make_site(
    folder: Path,
    variant: str = "shapes",
    seed: int = 0,
    pages: int | None = None,
    two_things: float = 0.55,
    font: Path = DEFAULT_FONT,
) -> SiteSummary:
    """Make a site in `folder`; what is there by then is replaced when all is made.

    Args:
        folder: where; it exists afterwards, complete, or not at all.
        variant: one of `VARIANTS`.
        seed: other seeds make other sites.
        pages: about how many pages; there are two plain good pairs for each. Not for emoji, which
            has as many as the font has glyphs.
        two_things: share of the scenes with two things.
        font: a colour font, for emoji.

    Raises:
        ValueError: for an unknown variant, fewer than one page, or pages given for emoji.
        FileNotFoundError: without a font for emoji.
    """
    plan = _plan(variant, seed, pages, two_things, font)
    items = list(_items(plan, f"{variant}/{seed}"))
    groups = lay_out(items, f"{variant}/{seed}")
    made = [
        make_page(group, number, plan.dialect, f"{variant}/{seed}")
        for number, group in enumerate(groups)
    ]
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    summary = _write(unfinished, plan, items, made, {"variant": variant, "seed": seed})
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return SiteSummary(folder, summary.pages, summary.files, summary.images)


def _plan(variant: str, seed: int, pages: int | None, two_things: float, font: Path) -> _Plan:
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}")
    if variant == "emoji":
        if pages is not None:
            raise ValueError("pages: an emoji site has as many pages as its font has glyphs for")
        glyphs = read_glyphs(font)
        subjects = EmojiSubjects(glyphs, font)
        counts = amounts(len(glyphs.shown), EMOJI_DIRT)
        return _Plan(EMOJI, subjects, counts, glyphs.prompts(seed))
    pages = DEFAULT_PAGES[variant] if pages is None else pages
    if pages < 1:
        raise ValueError(f"pages {pages} is not a positive number")
    dialect = FIRST if variant == "shapes" else SECOND
    counts = amounts(pages * GOOD_PER_PAGE)
    return _Plan(dialect, SceneSubjects(dialect, two_things), counts, scene_prompts(seed))


def _items(plan: _Plan, seed: str) -> Iterator[Item]:
    number = 0
    for kind, count in plan.counts.items():
        for index in range(count):
            rng = random.Random(f"{seed}/{kind}/{index}")
            maker = Maker(plan.dialect, plan.subjects, rng, kind, number, index)
            yield from make_items(maker)
            number += 1


def _write(
    folder: Path, plan: _Plan, items: list[Item], pages: list[WebPage], about: dict[str, object]
) -> SiteSummary:
    files = 0
    for start in range(0, len(pages), PAGES_PER_FILE):
        name = f"pages-{files:02d}.warc.gz"
        write_warc(folder / name, pages[start : start + PAGES_PER_FILE])
        files += 1
    write_truth(folder, (row for page in pages for row in _truth(page)))
    write_prompts(folder, plan.prompts)
    counted = Counter(item.kind for item in items)
    images = {kind: counted[kind] for kind in Kind if counted[kind]}
    about = {
        **about,
        "hosts": plan.dialect.hosts.names(),
        "pages": len(pages),
        "images": {str(kind): count for kind, count in images.items()},
    }
    write_site(folder, _answers(plan, items, pages), about)
    return SiteSummary(folder, len(pages), files, images)


def _answers(plan: _Plan, items: list[Item], pages: list[WebPage]) -> Iterator[Answer]:
    yield from robots_answers(plan.dialect.hosts)
    for page in pages:
        host, slash, path = page.url.partition("://")[2].partition("/")
        yield Route(host, slash + path, headers=page.headers), page.body
    for item in items:
        yield from item.answers


def _truth(page: WebPage) -> Iterator[TruthRow]:
    for item in page.items:
        yield TruthRow(
            image_url=item.url,
            page_url=page.url,
            caption=item.caption,
            caption_source=item.place,
            kind=item.kind,
            expected=item.expected,
            policy=item.policy,
            group=item.group,
            detail=item.detail,
            scene=item.scene,
        )
