"""The image that a page shows of itself where it is shared (Open Graph), with its description."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MOST_IMAGES = 16  # of a page; the protocol sets no bound
_NAMES = ("og:image", "og:image:url", "og:image:secure_url")


@dataclass
class SharedImage:
    """An image's addresses, and what describes it; the source is the name of the property."""

    addresses: list[str]
    caption: str = ""
    caption_source: str = "og:image:alt"


def shared_images(metas: Iterable[tuple[str, str]]) -> list[SharedImage]:
    """The Open Graph images among (property, content) of a page's meta elements.

    An `og:image:alt` belongs to the image before it. An image without one is described by the
    page's `og:description`, else by its `og:title`.
    """
    images: list[SharedImage] = []
    page: dict[str, str] = {}
    for property_, content in metas:
        name = property_.strip().lower()
        if not name.startswith("og:") or not content.strip():
            continue
        if name in _NAMES:
            _add(images, name, content)
        elif name == "og:image:alt" and images:
            images[-1].caption = images[-1].caption or content
        else:
            page.setdefault(name, content)
    for image in images:
        for name in ("og:description", "og:title"):
            if not image.caption.strip() and name in page:
                image.caption, image.caption_source = page[name], name
    return images


def _add(images: list[SharedImage], name: str, content: str) -> None:
    """`og:image` begins an image; its other addresses are those of the same one."""
    if name != "og:image" and images:
        images[-1].addresses.append(content)
    elif len(images) < MOST_IMAGES:
        images.append(SharedImage([content]))
