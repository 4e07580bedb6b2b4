"""Shards: the same bytes from the same samples, readable by everybody, and no rubbish in or out."""

import io
import tarfile

import pytest
import webdataset

from infra.shards import Sample, locate_images, read_shard, write_shard

A, B = "a" * 32, "b" * 32
SAMPLES = [
    Sample(A, b"\xff\xd8one", "jpg", "a café", {"width": 3, "domain": "x.test"}),
    Sample(B, b"\x89PNGtwo", "png", "zwei\nZeilen", {}),
]


def test_samples_come_back_as_they_were(tmp_path):
    count = write_shard(tmp_path / "x.tar", SAMPLES)

    assert count == 2
    assert list(read_shard(tmp_path / "x.tar")) == SAMPLES


def test_only_those_that_are_wanted_are_read(tmp_path):
    path = tmp_path / "00000.tar"
    samples = [Sample(f"{n:032x}", bytes(1000 * n), "jpg", f"{n}", {}) for n in range(5)]
    write_shard(path, samples)
    assert list(read_shard(path, only={samples[1].key, samples[4].key, "f" * 32})) == [
        samples[1],
        samples[4],
    ]
    assert list(read_shard(path, only=())) == []


def test_the_same_samples_give_the_same_bytes(tmp_path):
    turned = [
        Sample(s.key, s.image, s.extension, s.caption, dict(reversed(list(s.record.items()))))
        for s in SAMPLES
    ]
    write_shard(tmp_path / "x.tar", SAMPLES)
    write_shard(tmp_path / "y.tar", turned)

    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()


def test_headers_say_nothing_of_this_machine(tmp_path):
    write_shard(tmp_path / "x.tar", SAMPLES)

    with tarfile.open(tmp_path / "x.tar") as tar:
        marks = {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in tar}
    assert marks == {(0, 0, 0, 0o644, "", "")}


def test_webdataset_reads_them(tmp_path):
    write_shard(tmp_path / "x.tar", SAMPLES)

    found = list(webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [A, B]
    assert found[0]["jpg"] == b"\xff\xd8one"
    assert found[0]["txt"].decode() == "a café"


def test_an_empty_shard_is_a_shard(tmp_path):
    assert write_shard(tmp_path / "x.tar", []) == 0
    assert list(read_shard(tmp_path / "x.tar")) == []


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (SAMPLES[::-1], "sort by key"),
        ([SAMPLES[0], SAMPLES[0]], "sort by key"),
        ([Sample("../x", b"", "jpg", "")], "32 hex digits"),
        ([Sample(A, b"", "json", "")], "cannot be an image"),
    ],
)
def test_samples_that_cannot_be_read_back_are_refused(tmp_path, samples, words):
    with pytest.raises(ValueError, match=words):
        write_shard(tmp_path / "x.tar", samples)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"{A}.jpg", f"{A}.txt"], "has the parts"),
        ([f"{A}.jpg", f"{A}.png", f"{A}.json", f"{A}.txt"], "has the parts"),
        (["../../etc/passwd"], "is no member"),
    ],
)
def test_what_is_no_shard_is_named(tmp_path, names, words):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size = 2
            tar.addfile(header, io.BytesIO(b"{}"))

    with pytest.raises(ValueError, match=rf"x\.tar: .*{words}"):
        list(read_shard(tmp_path / "x.tar"))


def test_images_lie_where_they_are_said_to_lie(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, SAMPLES)
    content = path.read_bytes()

    found = list(locate_images(path))

    assert [sample for sample, _ in found] == SAMPLES
    for sample, start in found:
        assert content[start : start + len(sample.image)] == sample.image


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_images_behind_headers_of_other_writers_are_found(tmp_path, style):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=style, pax_headers={"comment": "x" * 600}) as tar:
        for ending, content in (("jpg", b"image"), ("json", b"{}"), ("txt", b"caption")):
            header = tarfile.TarInfo(f"{A}.{ending}")
            header.size, header.mtime = len(content), 0.5
            tar.addfile(header, io.BytesIO(content))

    [(_, start)] = locate_images(path)

    assert path.read_bytes()[start : start + 5] == b"image"


def test_an_image_that_is_not_stored_as_it_is_read_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for ending, content in (("jpg", b"head" + b"tail"), ("json", b"{}"), ("txt", b"caption")):
            header = tarfile.TarInfo(f"{A}.{ending}")
            header.size = len(content)
            if ending == "jpg":  # a hole of 1,000 bytes between its halves
                header.pax_headers = {"GNU.sparse.map": "0,4,1004,4", "GNU.sparse.size": "1008"}
            tar.addfile(header, io.BytesIO(content))

    [sample] = read_shard(path)

    assert sample.image == b"head" + bytes(1000) + b"tail"
    with pytest.raises(ValueError, match="the image of a+ is not stored plainly"):
        list(locate_images(path))
