"""WARC files in any state: what is sound is read, with exact offsets, and each fault is told."""

import gzip
import random

import pytest
from warcio.archiveiterator import ArchiveIterator

from tasks.sources.warc import Fault, Page, read_pages, read_records
from tests.tasks.sources.warc_files import WarcMaker, simple

# warcio leaves its temporary files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

JUNK = bytes(range(256)) * 3


def read(tmp_path, content, **options):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(content)
    found = list(read_pages(path, **options))
    pages = [int(one.url.rsplit("p", 1)[1]) for one in found if isinstance(one, Page)]
    return pages, [one for one in found if isinstance(one, Fault)]


def offsets(tmp_path):
    return [one.offset for one in read_pages(tmp_path / "x.warc.gz") if isinstance(one, Page)]


@pytest.mark.parametrize("packed", [True, False])
def test_a_sound_file_is_read_as_warcio_reads_it(tmp_path, packed):
    maker = simple(5, packed)
    assert read(tmp_path, maker.bytes()) == ([0, 1, 2, 3, 4], [])

    with (tmp_path / "x.warc.gz").open("rb") as file:
        iterator = ArchiveIterator(file)
        theirs = [(r.content_stream().read(), iterator.get_record_offset()) for r in iterator]
    ours = [(page.html, page.offset) for page in read_pages(tmp_path / "x.warc.gz")]
    assert ours == theirs
    assert offsets(tmp_path) == maker.offsets[:-1]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("cut", [8, 60, 200])
def test_a_truncated_file_keeps_the_whole_records(tmp_path, packed, cut):
    maker = simple(4, packed)
    content = maker.bytes()[: maker.offsets[3] + cut]

    assert read(tmp_path, content) == ([0, 1, 2], [Fault.TRUNCATED])


@pytest.mark.parametrize("packed", [True, False])
def test_garbage_between_records_is_passed_over(tmp_path, packed):
    maker = simple(4, packed)
    content = maker.bytes()[: maker.offsets[2]] + JUNK + maker.bytes()[maker.offsets[2] :]

    assert read(tmp_path, content) == ([0, 1, 2, 3], [Fault.BAD_RECORD])
    assert offsets(tmp_path)[2] == maker.offsets[2] + len(JUNK)


@pytest.mark.parametrize("packed", [True, False])
def test_garbage_first_does_not_hide_what_follows(tmp_path, packed):
    assert read(tmp_path, JUNK + simple(3, packed).bytes()) == ([0, 1, 2], [Fault.BAD_RECORD])


@pytest.mark.parametrize("place", [30, -6])  # in the packed stream, in its checksum
def test_a_damaged_member_is_not_used(tmp_path, place):
    maker = simple(4)
    content = bytearray(maker.bytes())
    content[maker.offsets[1 if place > 0 else 2] + place] ^= 0x55

    assert read(tmp_path, bytes(content)) == ([0, 2, 3], [Fault.BAD_RECORD])


def test_a_wrong_length_costs_one_record(tmp_path):
    content = simple(4, packed=False).bytes()
    first = content.index(b"Content-Length: ") + len(b"Content-Length: ")
    wrong = content[:first] + b"9" + content[first:]

    assert read(tmp_path, wrong) == ([1, 2, 3], [Fault.BAD_RECORD])


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (b"", [Fault.TRUNCATED]),
        (JUNK, [Fault.BAD_RECORD]),
        (b"<html>no archive</html>" * 50, [Fault.BAD_RECORD]),
    ],
)
def test_what_is_no_warc_is_one_fault(tmp_path, content, faults):
    assert read(tmp_path, content) == ([], faults)


def test_a_file_packed_as_a_whole_is_read(tmp_path):
    assert read(tmp_path, gzip.compress(simple(3, packed=False).bytes())) == ([0, 1, 2], [])


def test_a_bomb_is_not_unpacked(tmp_path):
    maker = simple(2)
    bomb = gzip.compress(b"WARC/1.0\r\n" + bytes(50_000_000))
    content = maker.bytes()[: maker.offsets[1]] + bomb + maker.bytes()[maker.offsets[1] :]

    assert read(tmp_path, content, max_record=1 << 20) == ([0, 1], [Fault.BAD_RECORD])


def test_only_pages_are_yielded(tmp_path):
    maker = WarcMaker()
    maker.add("http://a.test/p0", "<html>0")
    maker.add("http://a.test/p1", "<html>1", status="404 Not Found")
    maker.add("http://a.test/p2", b"\x89PNG", kind="image/png")
    maker.add("http://a.test/p3", "<html>3", record="request")
    maker.add("http://a.test/p4", "<!doctype html>4", kind=None)
    maker.add("http://a.test/p5", "plain", kind=None)
    maker.add("http://a.test/p6", "<html/>", kind="Application/XHTML+XML")
    maker.add("http://a.test/p7", "<html>7", status="301 Moved")

    assert read(tmp_path, maker.bytes()) == ([0, 4, 6], [])


def test_bodies_are_unpacked_and_lies_about_packing_are_seen_through(tmp_path):
    maker = WarcMaker()
    maker.add("http://a.test/p0", gzip.compress(b"<p>0"), headers=[("Content-Encoding", "gzip")])
    maker.add("http://a.test/p1", "<p>1", headers=[("Content-Encoding", "gzip")])
    maker.add(
        "http://a.test/p2", "4\r\n<p>2\r\n0\r\n\r\n", headers=[("Transfer-Encoding", "chunked")]
    )
    maker.add("http://a.test/p3", "<p>3", headers=[("Content-Encoding", "made-up")])
    path = tmp_path / "x.warc.gz"
    path.write_bytes(maker.bytes())

    assert [page.html for page in read_pages(path)] == [b"<p>0", b"<p>1", b"<p>2", b"<p>3"]


def test_what_headers_say_of_use_is_kept(tmp_path):
    said = [("X-Robots-Tag", "noai"), ("x-robots-tag", "noindex"), ("TDM-Reservation", "1")]
    path = tmp_path / "x.warc.gz"
    path.write_bytes(WarcMaker().add("http://a.test/", "<p>", headers=said).bytes())

    (page,) = read_pages(path)
    assert page.signals["x-robots-tag"] == "noai, noindex"
    assert page.signals["tdm-reservation"] == "1"


def test_random_damage_never_ends_the_reading():
    content = simple(6).bytes()
    for seed in range(300):
        random.seed(seed)
        damaged = bytearray(content)
        for _ in range(random.randrange(1, 6)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        damaged = damaged[random.choice((0, 1, 400)) : random.randrange(1, len(damaged))]

        found = list(read_records(bytes(damaged)))
        assert len(found) <= 12
