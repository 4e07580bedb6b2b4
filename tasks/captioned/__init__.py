"""Sets of captioned pictures that others made, by their format: a module each.

A module has `list_pairs(files)`, which yields what there is without reading a picture, and
`read_pictures(files, names)`, which yields the bytes of chosen pictures. Whatever the files hold is
hostile until it is checked: nothing is unpickled, nothing is unpacked to disk, and sizes are looked
at before bytes are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import PermanentError
from schemas.stage import Source

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST_PICTURE_BYTES = 64 << 20
MOST_CAPTION_BYTES = 1 << 20


@dataclass(frozen=True)
class File:
    """A file of the set: what it is called, what it is known by, and how to get it."""

    name: str
    folder: str
    identity: str
    size: int
    fetch: Callable[[], Path]

    @classmethod
    def of(cls, source: Source, fetch: Callable[[Source], Path]) -> File:
        """The file of a resolved source."""
        folder, _, name = source.uri.rpartition("/")
        return cls(name, folder, source.identity, source.size, lambda: fetch(source))

    @property
    def ending(self) -> str:
        """The name's last part, `.jpg`, lower case."""
        return Path(self.name).suffix.lower()

    def read(self, most: int) -> bytes:
        """The file's bytes.

        Raises:
            PermanentError: if there are more than `most`.
        """
        if self.size > most:
            raise PermanentError(f"{self.name}: {self.size} bytes; at most {most} are read")
        return self.fetch().read_bytes()


@dataclass(frozen=True)
class Listed:
    """A picture of a set with its captions.

    Attributes:
        name: where its bytes are; what it means is known to the format alone.
        label: what it is called in words to a person.
        identity: the same wherever the set lies; the choice of pictures is made by it.
    """

    name: tuple[str, ...]
    label: str
    identity: str
    captions: tuple[str, ...]


Listing = Iterator[Listed]
Pictures = Iterator[tuple[tuple[str, ...], bytes]]
Files = Sequence[File]


def some(names: Sequence[str]) -> str:
    """A few of many names, in words."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def text_of(content: bytes, label: str) -> str:
    """Text in UTF-8.

    Raises:
        PermanentError: if it is not.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PermanentError(f"{label}: its text is not UTF-8 ({error.reason})") from error
