"""Sources: files outside the pipeline, resolved before anything runs and pinned to what they were.

A declared source is a path, a glob, a URL (http, https, or an object store's), or a listing of
paths below a prefix, or one such listing a crawl of a month (`infra.crawls`). A local file is known
by the sha256 of its bytes, a remote one by size and ETag (or modification time), so that a file
replaced under the same name is noticed. Only what is declared is read: a listing, which may come
from elsewhere, cannot name anything outside its prefix.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from infra import http_source
from infra.crawls import by_crawl, months_without, read_crawls
from infra.environment import Environment
from infra.errors import PermanentError
from infra.store import hash_file
from schemas.stage import Listing, Source

_WEB = ("http", "https")
_STORES = ("s3", "gs", "abfs")  # object stores: each URL is read as it is, and leads nowhere else
_AT_ONCE = 16  # files that are asked about at a time; a month of Common Crawl has 90,000
_MOST_LISTED = 64 << 20  # bytes of a listing, unpacked
_MOST_CRAWLS = 1 << 20  # bytes of a list of crawls; Common Crawl's has 127 in some 40 kB
# What Common Crawl's paths are made of; nothing that leads upwards, elsewhere, or names several.
_PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.,=+@~-][\w.,=+@~/-]*")
_LOG = logging.getLogger(__name__)


def resolve_sources(
    declared: Iterable[str | Listing], environment: Environment
) -> tuple[Source, ...]:
    """Every file that the declared paths, globs, URLs and listings name, in order, each once.

    A month in which no crawl ended names none, which the log says.

    Raises:
        PermanentError: if one of them, or all together, name nothing, or may not be read.
    """
    entries, found = tuple(declared), dict[str, Source]()
    listings = [entry for entry in entries if isinstance(entry, Listing)]
    names = dict.fromkeys(one.crawls for one in listings if one.crawls)
    crawls = {name: read_crawls(_crawls(name, environment), name) for name in names}
    for entry in entries:
        if isinstance(entry, Listing):
            texts = [text for one in by_crawl(entry, crawls) for text in _listed(one, environment)]
            sources = _resolve_listed([environment.local(text) for text in texts], entry.label)
        else:
            sources = _resolve(environment.local(entry), entry)
        for source in sources:
            found.setdefault(source.uri, source)
    for name, months in months_without(listings, crawls).items():
        told = f"{name}: no crawl ended in {', '.join(months)}"
        if not found:
            raise PermanentError(f"the sources are missing: {told}")
        _LOG.warning("%s: nothing is read for it", told)
    return tuple(found.values())


def fetch_source(source: Source, folder: Path) -> Path:
    """A local file with the source's bytes; local ones in place, after a check that they are same.

    Raises:
        PermanentError: if the file is gone or is not the one that was resolved.
    """
    if "://" not in source.uri:
        path = Path(source.uri)
        if not path.exists() or f"sha256:{hash_file(path)[0]}" != source.identity:
            raise _changed(source.uri)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{hashlib.sha256(source.uri.encode()).hexdigest()[:16]}-{source.name}"
    if _scheme(source.uri) in _WEB:
        expected = http_source.Told(source.size, source.identity)
        same = http_source.fetch(source.uri, expected, target)
    else:
        filesystem, path_there = fsspec.core.url_to_fs(source.uri)
        filesystem.get_file(path_there, str(target))
        # Asked again after the last byte: what was replaced meanwhile is not what was resolved.
        filesystem.invalidate_cache()
        now = _asked_store(source.uri, "")
        same = now is not None and now.identity == source.identity
    if not same or target.stat().st_size != source.size:
        raise _changed(source.uri)
    return target


def _changed(uri: str) -> PermanentError:
    return PermanentError(f"the source {uri} changed after the run began; run again")


def _resolve(text: str, label: str) -> list[Source]:
    sources = _matching(text, label)
    if not sources:
        raise PermanentError(f"the source {label!r} is missing: nothing is there")
    return sources


def _resolve_listed(texts: list[str], label: str) -> list[Source]:
    """The files of a listing, which are no patterns, and each of which must be there."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        sources = []
        for text, source in zip(
            texts, threads.map(lambda text: _asked(text, label), texts), strict=True
        ):
            if source is None:
                raise PermanentError(f"the source {text!r}, which {label} lists, is missing")
            sources.append(source)
    return sources


def _matching(text: str, label: str) -> list[Source]:
    """The files that a path, glob or URL names."""
    paths = [text]
    if "://" not in text:
        paths = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else [text]
    elif _scheme(text) in _STORES and glob.has_magic(text):
        filesystem, path = fsspec.core.url_to_fs(text)
        paths = [f"{_scheme(text)}://{one}" for one in sorted(filesystem.glob(path))]
    elif "*" in text:
        raise PermanentError(
            f"the source {text!r}: a web server does not say which files it has; declare them one"
            " by one, or a listing of their paths"
        )
    return [source for path in paths if (source := _asked(path, label)) is not None]


def _asked(path: str, label: str) -> Source | None:
    """The file at a path or URL, or None."""
    if "://" not in path:
        return _local_source(path, label) if os.path.isfile(path) else None
    if _scheme(path) in _STORES:
        return _asked_store(path, label)
    told = http_source.ask(path)
    if told is None:
        return None
    return Source(
        uri=path, name=_name(path.partition("?")[0]), size=told.size, identity=told.mark,
        declared=label,
    )  # fmt: skip


def _local_source(path: str, label: str) -> Source:
    sha256, size = hash_file(Path(path))
    uri, identity = os.path.abspath(path), f"sha256:{sha256}"
    return Source(uri=uri, name=_name(path), size=size, identity=identity, declared=label)


def _asked_store(url: str, label: str) -> Source | None:
    filesystem, path = fsspec.core.url_to_fs(url)
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        return None
    size = int(info.get("size") or 0)
    return Source(uri=url, name=_name(url), size=size, identity=_mark(info), declared=label)


def _mark(info: dict[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag")
    if tag:
        return f"etag:{info.get('size')}:{str(tag).strip(chr(34))}"
    modified = info.get("LastModified") or info.get("mtime") or info.get("created") or ""
    return f"modified:{info.get('size')}:{modified}"


def _scheme(url: str) -> str:
    """The scheme of a URL that may be read.

    Raises:
        PermanentError: for one that may not, and for URLs that hold others (fsspec's `::`).
    """
    scheme = url.split("://", 1)[0].lower()
    if scheme not in (*_WEB, *_STORES) or "::" in url:
        known = ", ".join(f"{one}://" for one in (*_WEB, *_STORES))
        raise PermanentError(f"the source {url!r} cannot be read: use a path, home://, or {known}")
    return scheme


def _listed(listing: Listing, environment: Environment) -> Iterator[str]:
    """The paths of a listing's range, behind its prefix."""
    content = _content(listing.listing, _MOST_LISTED, environment)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise PermanentError(f"{listing.listing}: it is no text: {error}") from error
    if len(lines) <= listing.start:
        raise PermanentError(
            f"{listing.listing}: it has {len(lines)} lines; start is {listing.start}"
        )
    for number, line in islice(enumerate(lines), listing.start, listing.stop):
        if not _PATH.fullmatch(line):
            raise PermanentError(
                f"{listing.listing}: line {number + 1}, {line[:200]!r}, is no relative path"
            )
        yield listing.prefix + line


def _crawls(name: str, environment: Environment) -> bytes:
    """The bytes of a list of crawls."""
    place = environment.local(name)
    if "://" not in place or _scheme(place) not in _WEB:
        return _content(name, _MOST_CRAWLS, environment)
    # One that is made for each request tells no version, and need not: it is read once.
    content = http_source.read(place, _MOST_CRAWLS)
    if len(content) > _MOST_CRAWLS:
        raise PermanentError(f"{name}: it is too large: at most {_MOST_CRAWLS} bytes are read")
    return content


def _content(name: str, most: int, environment: Environment) -> bytes:
    """The bytes, unpacked, of a file that says what is to be read."""
    (file,) = resolve_sources((name,), environment)
    content = b""
    if file.size <= most:
        with tempfile.TemporaryDirectory(prefix="tapir-") as folder:
            content = _unpacked(fetch_source(file, Path(folder)), name, most + 1)
    if max(file.size, len(content)) > most:
        raise PermanentError(f"{name}: it is too large: at most {most} bytes are read")
    return content


def _unpacked(path: Path, name: str, most: int) -> bytes:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            return stream.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise PermanentError(f"{name}: it is no text: {error}") from error


def _name(path: str) -> str:
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in name).lstrip(".+-") or "source"
