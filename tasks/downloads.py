"""Chunks of pairs made into shards: fetched several at a time, written one by one.

Which pair becomes a sample and which a drop depends on the chunk and on what the sites answered,
and on nothing else: not on the order of answers, on kills, or on what else was fetched with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from infra.collection import Collection, Fetched
from infra.gateway.outcomes import Attempt, url_key
from infra.image_types import image_type
from infra.img2dataset import Result
from infra.shards import Sample, write_shard
from infra.tables import TableWriter, read_columns, read_table
from infra.work import Mapped, ShardWork, Work
from schemas.artifact import Unit
from schemas.records import DROP_SCHEMA, OUTCOME_SCHEMA, PAIR_SCHEMA, DropReason, drop_record

_ENCODED = "jpg"  # what img2dataset makes of resized pictures

Pair = dict[str, Any]


class Downloads:
    """The chunks of one stage.

    Its method `download` is mapped over one chunk at a time, which `Work.map` does in this process:
    here run the gateway and its one queue for each host.
    """

    def __init__(
        self,
        stage: str,
        collection: Collection,
        chunks: Sequence[Unit],
        identity: dict[str, Any],
        batch: int,
        work: Work,
    ) -> None:
        """Prepare to make chunks.

        Args:
            identity: the stage's parameters that bear on the result.
            batch: pairs to fetch in one run of img2dataset.
        """
        self._stage = stage
        self._collection = collection
        self._config = {"identity": identity}
        self._batch = batch
        self._work = work
        self._missing = {
            chunk.sha256: chunk
            for chunk in chunks
            if not work.is_made(self.download, chunk, **self._config)
        }
        self._pairs = sum(chunk.records or 0 for chunk in chunks)
        self._done = 0  # pairs of chunks that are made
        self._fetched = Fetched({}, {})
        self._in_batch: set[str] = set()
        for chunk in self._missing.values():
            collection.want(chunk.sha256, self._urls(chunk))

    def make(self, chunk: Unit) -> Mapped:
        """The outputs `images`, `drops` and `outcomes` of a chunk, fetched if they are not made.

        Raises:
            ConnectionError: if not one host of it could be reached; asking later may help.
        """
        missing = chunk.sha256 in self._missing
        if missing and chunk.sha256 not in self._in_batch:
            self._fetch_from(chunk)
        if missing:
            self._refuse_silence(chunk)
        made = self._work.map(self.download, [chunk], **self._config)
        if missing:
            # Only now is the shard in the store for good, so that nobody asks for the bytes again.
            self._collection.release(chunk.sha256)
            del self._missing[chunk.sha256]
        self._done += chunk.records or 0
        self._show(0)
        return made

    def download(self, unit: Unit, shard: ShardWork, identity: dict[str, Any]) -> None:
        """Write the shard, the drops and the outcomes of a chunk that was fetched."""
        pairs = sorted(read_table(shard.fetch(unit), PAIR_SCHEMA), key=lambda pair: pair["key"])
        resized = identity["resize_mode"] != "no"
        stem = unit.name.removesuffix(".parquet")
        drops, outcomes = (
            shard.scratch / f"{stem}.{kind}.parquet" for kind in ("drops", "outcomes")
        )
        tar = shard.scratch / f"{stem}.tar"
        with ExitStack() as stack:
            reject = stack.enter_context(TableWriter(drops, DROP_SCHEMA))
            note = stack.enter_context(TableWriter(outcomes, OUTCOME_SCHEMA))
            images = write_shard(tar, self._samples(pairs, resized, reject, note))
        if images + reject.rows != len(pairs) or note.rows != len(pairs):
            raise RuntimeError(
                f"{unit.name}: {len(pairs)} pairs became {images} images and {reject.rows} drops"
            )
        for output, path, rows in (("images", tar, images), ("drops", drops, reject.rows)):
            if rows:
                shard.add(output, path, path.name, rows)
        shard.add("outcomes", outcomes, outcomes.name, note.rows)

    def _samples(
        self, pairs: list[Pair], resized: bool, reject: TableWriter, note: TableWriter
    ) -> Iterator[Sample]:
        for pair in pairs:
            key = url_key(pair["image_url"])
            attempt, result = self._fetched.attempts[key], self._fetched.results.get(key)
            note.write(
                {
                    "key": pair["key"],
                    "image_url": pair["image_url"],
                    "outcome": str(attempt.outcome),
                    "permanent": attempt.permanent,
                }
            )
            objection = _objection(attempt, result)
            if objection is None:
                assert result is not None
                yield _sample(pair, attempt, result, resized)
            else:
                reject.write(drop_record(pair, self._stage, *objection, sha256=attempt.sha256))

    def _fetch_from(self, chunk: Unit) -> None:
        """Fetch this chunk and those after it, until the batch is full."""
        following = list(self._missing.values())
        following = following[following.index(chunk) :]
        urls: dict[str, str] = {}
        self._in_batch, pairs = set(), 0
        for one in following:
            if pairs and pairs + (one.records or 0) > self._batch:
                break
            urls |= self._urls(one)
            pairs += one.records or 0
            self._in_batch.add(one.sha256)
        folder = self._work.scratch / "batch"
        shutil.rmtree(folder, ignore_errors=True)  # of the batch before, which is written
        self._fetched = self._collection.fetch(urls, folder, self._show)

    def _refuse_silence(self, chunk: Unit) -> None:
        """Do not remember for good what came of a time when this machine reached nothing.

        A chunk whose images all lie on one host says little, for that may be gone; unless there is
        no other chunk, when nothing would be left anyway.
        """
        urls = self._urls(chunk)
        tried = [one for key in urls if (one := self._fetched.attempts[key]).tried]
        hosts = sorted({urlsplit(one.url).netloc for one in tried})
        few = len(hosts) < 2 and (chunk.records or 0) < self._pairs
        if not tried or few or not all(one.unreachable for one in tried):
            return
        self._collection.reopen([one.key for one in tried])
        first = tried[0]
        raise ConnectionError(
            f"{self._stage}: none of the {len(hosts)} hosts of {chunk.name} could be reached, so"
            f" its {len(tried)} images stay to be asked for; is this machine's network up?"
            f" {first.url}: {first.outcome}, {first.detail or first.error}"
        )

    def _show(self, ended: int) -> None:
        # A URL that is asked for twice ends twice, so this runs a little ahead.
        self._work.progress(min(self._done + ended, self._pairs), self._pairs, "images")

    def _urls(self, chunk: Unit) -> Mapping[str, str]:
        table = read_columns(self._work.fetch(chunk), PAIR_SCHEMA, ["image_url"])
        return {url_key(url): url for url in table["image_url"].to_pylist()}


def _objection(attempt: Attempt, result: Result | None) -> tuple[DropReason, str] | None:
    if not attempt.ok:
        return DropReason(attempt.outcome.value), attempt.detail
    assert result is not None
    if result.undecodable:
        return DropReason.UNDECODABLE, result.error[:200]
    return None


def _sample(pair: Pair, attempt: Attempt, result: Result, resized: bool) -> Sample:
    image = result.read()
    if result.sha256 != attempt.sha256:
        raise RuntimeError(
            f"{pair['image_url']}: img2dataset's bytes are not those that the gateway fetched"
        )
    extension = _ENCODED if resized else image_type(image)
    assert extension is not None
    record = {**pair, "sha256": attempt.sha256, "opt_out": _signals(pair["opt_out"], attempt)}
    return Sample(pair["key"], image, extension, pair["caption"], record)


def _signals(seen: str | None, attempt: Attempt) -> str | None:
    """Opt-out signals of page and image, also those that permit."""
    return "; ".join(text for text in (seen, attempt.signals) if text) or None
