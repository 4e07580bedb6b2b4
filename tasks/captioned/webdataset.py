"""WebDataset tars: members of one key side by side, a picture and a text; others are not opened."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

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


@dataclass
class _Entry:
    """One sample: its picture if it was asked for, and its text."""

    key: str
    picture: bytes | None = None
    pictures: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def list_pairs(files: Files) -> Listing:
    """What there is.

    Raises:
        PermanentError: for a file that is no (uncompressed) tar, a sample without exactly one
            picture and one text, or a key that a shard has twice.
    """
    others = [file.name for file in files if file.ending != ".tar"]
    if others:
        raise PermanentError(f"files: {some(others)} is no .tar; WebDataset shards are")
    for number, file in enumerate(files):
        seen: set[str] = set()
        for entry in _entries(file, frozenset()):
            label = f"{file.name}: sample {entry.key!r}"
            if entry.key in seen:
                raise PermanentError(f"{label} is there twice")
            seen.add(entry.key)
            if len(entry.pictures) != 1 or len(entry.texts) != 1:
                raise PermanentError(
                    f"{label} has {len(entry.pictures)} pictures and {len(entry.texts)} texts"
                )
            captions = tuple(line for line in entry.texts[0].splitlines() if line.strip())
            identity = f"{file.identity}/{entry.key}"
            yield Listed((str(number), entry.key), label, identity, captions)


def read_pictures(files: Files, names: Collection[tuple[str, ...]]) -> Pictures:
    """The bytes of the chosen pictures."""
    for number, file in enumerate(files):
        keys = frozenset(key for shard, key in names if shard == str(number))
        for entry in _entries(file, keys) if keys else ():
            if entry.picture is not None:
                yield (str(number), entry.key), entry.picture


def _entries(file: File, wanted: Collection[str]) -> Iterator[_Entry]:
    """The samples of a shard as a stream, pictures only of the wanted keys."""
    entry: _Entry | None = None
    try:
        with tarfile.open(file.fetch(), "r|") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, ending = _split(member.name)
                if entry is not None and key != entry.key:
                    yield entry
                    entry = None
                entry = entry or _Entry(key)
                _take(entry, tar, member, ending, key in wanted)
    # What tarfile raises on damaged and on malicious archives.
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
        raise PermanentError(f"{file.name}: it is no sound tar file: {error}") from error
    if entry is not None:
        yield entry


def _take(
    entry: _Entry, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str, wanted: bool
) -> None:
    if ending in PICTURES:
        entry.pictures.append(ending)
        if wanted:
            entry.picture = _read(tar, member, MOST_PICTURE_BYTES)
    elif ending == ".txt":
        entry.texts.append(text_of(_read(tar, member, MOST_CAPTION_BYTES), member.name))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:  # also what a sparse member would be unpacked to
        raise PermanentError(f"{member.name[:200]}: {member.size} bytes; at most {most} are read")
    content = tar.extractfile(member)
    assert content is not None  # it is a file
    return content.read()


def _split(name: str) -> tuple[str, str]:
    """Key and ending of a member: WebDataset's keys end at the first dot after the last slash."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()
