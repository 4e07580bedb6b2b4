"""Link metadata: the pairs that warcio and json find, from records of any form."""

import json

import pytest
from warcio.archiveiterator import ArchiveIterator

from tasks.sources.warc import Fault
from tasks.sources.wat import pairs_of_wat
from tests.tasks.sources import plain_pages
from tests.tasks.sources.warc_files import WarcMaker, add_wat
from tests.tasks.sources.web_pages import page

# warcio leaves its temporary files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

PAGE = "http://a.test/dir/"


def read(tmp_path, *payloads, **options):
    maker = WarcMaker()
    for payload in payloads:
        add_wat(maker, PAGE, payload)
    (tmp_path / "x.wat.gz").write_bytes(maker.bytes())
    return list(pairs_of_wat(tmp_path / "x.wat.gz", "x.wat.gz", **options))


def wat(html, **headers):
    return plain_pages.wat_of_page(PAGE, html, headers)


def rows(found):
    return [one.row for record in found if not isinstance(record, Fault) for one in record]


def test_the_pairs_are_those_of_warcio_and_json(tmp_path):
    maker = WarcMaker()
    for seed in range(60):
        url, html = page(seed)
        add_wat(maker, url, plain_pages.wat_of_page(url, html))
        add_wat(maker, url, plain_pages.wat_of_page(url, html), record="resource")
    path = tmp_path / "x.wat.gz"
    path.write_bytes(maker.bytes())
    theirs = set()
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "metadata":
                url, pairs = plain_pages.pairs_of_wat(record.content_stream().read())
                theirs |= {(url, *pair) for pair in pairs}

    kept = [row for row in rows(pairs_of_wat(path, "x")) if "reason" not in row]
    ours = {(row["page_url"], row["image_url"], row["caption"], row["caption_source"],
             row["license"]) for row in kept}  # fmt: skip
    assert ours == theirs
    assert len(ours) > 400


def test_a_pair_says_where_it_was_found(tmp_path):
    (first, second) = read(tmp_path, wat("<img src=a alt=one>"), wat("<img src=b title=two>"))

    assert (first[0].row["offset"], first[0].row["source"]) == (0, "x.wat.gz")
    assert second[0].row["offset"] > 0
    assert (second[0].row["caption"], second[0].row["caption_source"]) == ("two", "title")


def test_records_without_images_are_not_parsed(tmp_path):
    assert read(tmp_path, wat("<a href=x>text</a>"), b'{"broken": ') == []


@pytest.mark.parametrize(
    ("html", "headers"),
    [
        ("<meta name=robots content=noai><img src=a alt=x>", {}),
        ("<img src=a alt=x>", {"X-Robots-Tag": "noimageai"}),
        ("<img src=a alt=x>", {"tdm-reservation": ["0", "1"]}),
        ("<img src=a alt=x>", {"Content-Usage": "train-ai=n"}),
    ],
)
def test_opt_outs_of_meta_elements_and_headers_are_seen(tmp_path, html, headers):
    assert [row["reason"] for row in rows(read(tmp_path, wat(html, **headers)))] == ["opted_out"]


def test_pages_with_an_error_status_give_nothing(tmp_path):
    payload = wat("<img src=a alt=x>")
    response = payload["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
    response["Response-Message"]["Status"] = "404"

    assert rows(read(tmp_path, payload)) == []


def test_slashes_may_be_escaped(tmp_path):
    content = json.dumps(wat("<img src=a alt=x>")).replace("/", "\\/").encode()

    assert [row["image_url"] for row in rows(read(tmp_path, content))] == ["http://a.test/dir/a"]


@pytest.mark.parametrize(
    "content",
    [
        b'"IMG@', b'"IMG@"', b"[" * 100_000 + b'"IMG@"', b'{"Envelope": "IMG@"}',
        b'{"Envelope": {"x": "\xff"}, "y": "IMG@/src"}',
    ],
)  # fmt: skip
def test_what_is_no_metadata_is_a_fault_and_reading_goes_on(tmp_path, content):
    found = read(tmp_path, content, wat("<img src=a alt=x>"))

    assert (found[0], len(rows(found))) == (Fault.BAD_RECORD, 1)


def test_a_record_of_absurd_size_is_not_unpacked(tmp_path):
    huge = wat("<img src=a alt=" + "x" * 3_000_000 + ">")
    found = read(tmp_path, huge, wat("<img src=a alt=x>"), max_record=1 << 20)

    assert (found[0], len(rows(found))) == (Fault.BAD_RECORD, 1)
