"""Shards that others made become image shards with the same records, or drops with a reason."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.tables import read_table
from infra.work import Work
from schemas.artifact import ImageShards
from schemas.records import DROP_SCHEMA, pair_key
from tasks.dedup_images import DedupParams, dedup_images
from tasks.filter_images import FilterImagesParams, filter_images
from tasks.import_shards import ImportParams, import_shards
from tests.tasks.image_shards import add_samples, make_sample, samples_of, saved


def picture(number, kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind)


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def sample(number, kind="PNG", **values):
    """As img2dataset writes them."""
    said = {"url": f"http://a.test/{number}.png", "caption": f"picture {number}", "width": 40}
    key, ending = f"0000{number:05d}", {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[kind]
    return [(f"{key}.{ending}", picture(number, kind)),
            (f"{key}.json", json.dumps(said | values).encode()),
            (f"{key}.txt", f"picture {number}\n".encode())]  # fmt: skip


def read(home, files, images=None, **options):
    params = ImportParams(files=tuple(map(str, files)), **options)
    sources = resolve_sources(params.sources(), Work.local(home).environment)
    work = Work.local(home, sources=sources)
    return import_shards(params, work, images), work


def reasons(imported, work):
    tables = (read_table(work.fetch(unit), DROP_SCHEMA) for unit in imported.drops.units)
    return [(row["reason"], row["detail"]) for table in tables for row in table]


def test_samples_keep_their_bytes_and_gain_records(tmp_path):
    kinds = ["PNG", "JPEG", "WEBP"] * 4
    members = [one for n, kind in enumerate(kinds) for one in sample(n, kind)]
    imported, work = read(tmp_path, [tar(tmp_path / "00000.tar", members)])

    found = {one.caption: one for one in samples_of(imported.images, work).values()}
    assert [found[f"picture {n}"].image for n in range(12)] == [
        picture(n, kind) for n, kind in enumerate(kinds)
    ]
    one = found["picture 1"]
    assert (one.extension, one.key) == ("jpg", pair_key("http://a.test/1.png", "", "picture 1"))
    assert one.record["source"] == "00000.tar" and one.record["offset"] == 1
    assert (one.record["domain"], one.record["caption_source"]) == ("a.test", "shard")


def test_filters_and_dedup_take_imported_shards(tmp_path):
    members = [*sample(1), *sample(2), *sample(3)]
    members[3] = (members[3][0], members[0][1])  # the second picture is the first one
    imported, work = read(tmp_path, [tar(tmp_path / "a.tar", members)])
    filters = FilterImagesParams.model_validate({"filters": [{"decodable": {}}]})
    kept = filter_images(imported.images, filters, work).kept

    assert dedup_images(kept, DedupParams(), work).kept.records == 2


def test_without_urls_an_image_is_what_its_bytes_are(tmp_path):
    members = [
        ("x/a.b.png", picture(1)),
        ("x/a.txt", b"one"),
        ("x/c.png", picture(2)),
        ("x/c.txt", b"two"),
    ]
    members[0] = ("x/a.png", picture(1))
    imported, work = read(tmp_path, [tar(tmp_path / "a.tar", members)])

    urls = {one.record["image_url"][:11] for one in samples_of(imported.images, work).values()}
    assert urls == {"urn:sha256:"} and imported.images.records == 2


def test_columns_are_those_that_are_named(tmp_path):
    values = {"address": "http://b.test/i", "alt": "said", "on": "http://c.test/p", "terms": "CC0"}
    members = [("a.png", picture(1)), ("a.json", json.dumps(values).encode())]
    imported, work = read(
        tmp_path, [tar(tmp_path / "a.tar", members)], url="address", caption="alt", page="on",
        license="terms",
    )  # fmt: skip

    (one,) = samples_of(imported.images, work).values()
    assert (one.caption, one.record["page_url"], one.record["license"]) == (
        "said", "http://c.test/p", "CC0",
    )  # fmt: skip


def test_what_is_no_pair_is_dropped_with_a_reason(tmp_path):
    members = [
        *sample(0), ("a.png", b"<html>"), ("a.txt", b"a"), ("b.png", picture(1)), ("b.txt", b" "),
        ("c.png", picture(2)), ("c.jpg", picture(3, "JPEG")), ("c.txt", b"c"), ("d.txt", b"d"),
        ("e.png", picture(4)), ("e.json", b"[1"), ("f.pyd", b"no pickle"),
    ]  # fmt: skip
    imported, work = read(tmp_path, [tar(tmp_path / "a.tar", members)])

    assert imported.images.records == 1
    assert reasons(imported, work) == [
        ("not_an_image", "begins with b'<html>'"), ("no_caption", "no text beside the picture"),
        ("not_an_image", "2 pictures in one sample"), ("not_an_image", "0 pictures in one sample"),
        ("no_caption", "no text beside the picture"), ("not_an_image", "0 pictures in one sample"),
    ]  # fmt: skip


def test_a_damaged_tar_keeps_what_was_sound(tmp_path):
    whole = tar(tmp_path / "a.tar", [*sample(0), *sample(1), *sample(2)]).read_bytes()
    for cut in (len(whole) // 2 - 2000, len(whole) // 2, 512 * 20 + 8):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        imported, work = read(tmp_path, [tmp_path / "a.tar"])
        assert imported.images.records >= 1
        assert work.counts["truncated_files/a.tar"] == 1
    (tmp_path / "b.tar").write_bytes(b"PK" + bytes(2000))
    with pytest.raises(PermanentError, match="no pair is left"):
        read(tmp_path, [tmp_path / "b.tar"])


def test_a_link_is_never_followed(tmp_path):
    path = tar(tmp_path / "a.tar", sample(0))
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    imported, work = read(tmp_path, [path])

    assert reasons(imported, work) == [("not_an_image", "0 pictures in one sample")]


def test_next_months_shards_leave_last_months_alone(tmp_path):
    tar(tmp_path / "a.tar", [*sample(0), *sample(1)])
    first, _ = read(tmp_path / "home", [tmp_path / "*.tar"])
    tar(tmp_path / "b.tar", sample(2))
    second, work = read(tmp_path / "home", [tmp_path / "*.tar"])

    assert second.images.units[:1] == first.images.units
    assert (work.made, work.reused) == (2, 2)  # a shard and the list of its keys, each


def test_a_pair_is_kept_once_also_beside_downloaded_ones(tmp_path):
    work = Work.local(tmp_path / "home")
    key = pair_key("http://a.test/1.png", "", "picture 1")
    ours = [make_sample("x", picture(9)), make_sample("y", picture(8))]
    object.__setattr__(ours[1], "key", key)
    images = add_samples(work, ours)
    tar(tmp_path / "a.tar", [*sample(0), *sample(1), *sample(0)])
    tar(tmp_path / "b.tar", [*sample(0), *sample(3)])
    imported, work = read(tmp_path / "home", [tmp_path / "*.tar"], images)

    found = samples_of(imported.images, work)
    assert isinstance(imported.images, ImageShards)
    assert imported.images.units[0] == images.units[0] and found[key].image == picture(8)
    assert [unit.records for unit in imported.images.units] == [2, 1, 1]
    assert work.counts["repeated_pairs"] == 3
