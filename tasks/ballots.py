"""Pairs of pictures to vote on, from files of drawn candidates or folders of `tapir sample`.

Of each caption the first candidate is shown: the best-ranked where the file is ranked, else any.
Pictures are decoded and written anew as PNG, so that a file says nothing of how it was made.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from infra.errors import PermanentError
from infra.voting.ballot import Pair
from tasks.candidates import read_candidates

_MOST_PIXELS = 20_000_000  # of a picture in a folder, which may have come from anywhere
_LONGEST_CAPTION = 1000

Pictures = Mapping[str, bytes]  # caption -> PNG


def pictures_of(files: Iterable[Path]) -> dict[str, bytes]:
    """The first candidate of each caption in files of candidates."""
    found: dict[str, bytes] = {}
    for file in files:
        for one in read_candidates(file).each():
            picture = Image.fromarray(one.pictures[0].transpose(1, 2, 0))
            found.setdefault(one.prompt.text, _png(picture))
    return found


def pictures_in(folder: Path) -> dict[str, bytes]:
    """The best picture of each caption in a folder, or in folders below it.

    Pictures are those of `tapir sample`, whose text fields say prompt and score; others are passed
    over.

    Raises:
        PermanentError: if there is none.
    """
    best: dict[str, tuple[float, bytes]] = {}
    for path in sorted(folder.rglob("*.png")):
        try:
            caption, score, png = _read_drawn(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # no picture of ours
        if caption not in best or score > best[caption][0]:
            best[caption] = (score, png)
    if not best:
        raise PermanentError(f"{folder}: no picture in it says by which prompt it was drawn")
    return {caption: png for caption, (_, png) in best.items()}


def contents(pictures: Pictures) -> str:
    """Digest over captions and pictures."""
    hashes = {caption: hashlib.sha256(png).hexdigest() for caption, png in pictures.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def make_pairs(first: Pictures, second: Pictures) -> tuple[Pair, ...]:
    """Pairs of all captions of both; the same picture twice is no pair.

    Raises:
        PermanentError: if there is none.
    """
    common = [caption for caption in first if caption in second]
    pairs = [Pair(caption, first[caption], second[caption]) for caption in common]
    different = tuple(pair for pair in pairs if pair.first != pair.second)
    if not common:
        raise PermanentError(
            f"the two have no caption in common: of {len(first)} and {len(second)} captions the"
            f" first ones are {next(iter(first))!r} and {next(iter(second))!r}"
        )
    if not different:
        raise PermanentError(f"the pictures of all {len(common)} captions are the same in both")
    return different


def _read_drawn(path: Path) -> tuple[str, float, bytes]:
    """Caption, score and pixels of one file; a ValueError if they are not there."""
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"{path}: {image.width} x {image.height} pixels")
        caption, score = image.info.get("prompt"), image.info.get("score")
        if not isinstance(caption, str) or not 0 < len(caption) <= _LONGEST_CAPTION:
            raise ValueError(f"{path}: says no prompt")
        return str(caption), float(score or 0), _png(image.convert("RGB"))


def _png(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.info = {}
    picture.save(target, "PNG")
    return target.getvalue()
