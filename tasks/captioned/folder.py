"""A folder of pictures, each with a text file of the same name; each of its lines is a caption."""

from __future__ import annotations

from collections.abc import Collection

from infra.errors import PermanentError
from tasks.captioned import (
    MOST_CAPTION_BYTES,
    MOST_PICTURE_BYTES,
    PICTURES,
    File,
    Files,
    Listed,
    Listing,
    Pictures,
    some,
    text_of,
)


def list_pairs(files: Files) -> Listing:
    """What there is.

    Raises:
        PermanentError: for a file of another kind, a picture without a text, or a text without one.
    """
    pictures, texts = _by_stem(files, PICTURES), _by_stem(files, (".txt",))
    others = [file.name for file in files if file.ending not in (*PICTURES, ".txt")]
    if others:
        raise PermanentError(f"files: {some(others)} is neither a picture nor .txt; leave it out")
    for these, missing, those in ((pictures, ".txt", texts), (texts, "picture", pictures)):
        alone = [these[stem].name for stem in these.keys() - those.keys()]
        if alone:
            raise PermanentError(f"files: there is no {missing} beside {some(sorted(alone))}")
    for stem, picture in pictures.items():
        text = texts[stem]
        lines = text_of(text.read(MOST_CAPTION_BYTES), text.name).splitlines()
        captions = tuple(line for line in lines if line.strip())
        yield Listed(stem, picture.name, picture.identity, captions)


def read_pictures(files: Files, names: Collection[tuple[str, ...]]) -> Pictures:
    """The bytes of the chosen pictures."""
    for stem, picture in _by_stem(files, PICTURES).items():
        if stem in names:
            yield stem, picture.read(MOST_PICTURE_BYTES)


def _by_stem(files: Files, endings: tuple[str, ...]) -> dict[tuple[str, ...], File]:
    found: dict[tuple[str, ...], File] = {}
    for file in files:
        if file.ending in endings:
            stem = (file.folder, file.name[: -len(file.ending)])
            if stem in found:
                raise PermanentError(f"files: {found[stem].name} and {file.name} have one name")
            found[stem] = file
    return found
