"""Shards of given pictures, for tests of the stages that read shards."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from infra.shards import Sample, read_shard, write_shard
from schemas.artifact import ImageShards


def saved(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def make_sample(name: str, image: bytes, caption: str = "a caption") -> Sample:
    """A sample with the record that downloading gives it."""
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    record = {
        "image_url": f"http://a.test/{name}", "page_url": "http://a.test/", "domain": "a.test",
        "source": "x.warc.gz", "offset": 0, "caption_source": "alt", "language": "en",
        "opt_out": None,
    }  # fmt: skip
    return Sample(key, image, "png", caption, record)


def add_samples(work, samples, shards=1):
    """Split samples over shards by their order of keys, and store them."""
    ordered = sorted(samples, key=lambda sample: sample.key)
    units = []
    for number in range(shards):
        path = work.scratch / f"images-{number:05d}.tar"
        count = write_shard(path, ordered[number::shards])
        units.append(work.add(path, path.name, count))
    return ImageShards(units=tuple(units))


def samples_of(artifact, work):
    """All samples of an artifact, by key."""
    found = (one for unit in artifact.units for one in read_shard(work.fetch(unit)))
    return {sample.key: sample for sample in found}
