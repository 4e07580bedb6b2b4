"""Lists of URLs as LAION, CC12M and DataComp are: every row is a pair, a drop or a fault."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from infra.errors import PermanentError
from schemas.base import canonical
from schemas.records import pair_key
from tasks.collect_pairs import CollectParams
from tasks.sources.url_lists import pairs_of_list
from tasks.sources.warc import Fault

ROWS = [
    {"URL": f"https://a.test/{n}.jpg", "TEXT": f"caption {n}, \"said\"\nésy 東京", "LICENSE": "?",
     "PAGE": "http://b.test/p"} for n in range(9)
]  # fmt: skip
COLUMNS = {"url": "URL", "caption": "TEXT", "page": "PAGE", "license": "LICENSE"}


def parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=4)
    return buffer.getvalue()


def comma(rows, separator=",", header=True):
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=separator)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def read(tmp_path, content, format, columns=COLUMNS, **options):
    (tmp_path / "list").write_bytes(content)
    return list(pairs_of_list(tmp_path / "list", "list", format, columns, **options))


@pytest.mark.parametrize(
    ("format", "content", "options"),
    [
        ("parquet", parquet(ROWS), {}),
        ("csv", comma(ROWS), {}),
        ("csv", b"\xef\xbb\xbf" + comma(ROWS, "\t"), {"separator": "\t"}),
        ("csv", comma(ROWS, header=False), {"header": tuple(ROWS[0])}),
        ("csv", gzip.compress(comma(ROWS)), {}),
        ("jsonl", lines(ROWS), {}),
        ("jsonl", gzip.compress(lines(ROWS)), {}),
    ],
)
def test_every_row_is_a_pair_whatever_the_format(tmp_path, format, content, options):
    found = read(tmp_path, content, format, **options)

    assert len(found) == 9
    assert found[3].row == {
        "key": pair_key("https://a.test/3.jpg", "http://b.test/p", 'caption 3, "said" ésy 東京'),
        "image_url": "https://a.test/3.jpg", "page_url": "http://b.test/p", "domain": "b.test",
        "caption": 'caption 3, "said" ésy 東京', "caption_source": "list", "source": "list",
        "offset": 3, "language": None, "opt_out": None, "license": "?",
    }  # fmt: skip


def test_without_a_page_the_domain_is_the_images(tmp_path):
    found = read(tmp_path, lines(ROWS), "jsonl", {"url": "URL", "caption": "TEXT", "page": None})

    assert (found[0].row["page_url"], found[0].row["domain"]) == ("", "a.test")


def test_rows_that_make_no_pair_have_a_reason(tmp_path):
    rows = [{"URL": url, "TEXT": caption} for url, caption in (
        ("https://a.test/1", None), (None, "x"), ("relative.jpg", "x"), ("data:x", "x"),
        ("https://a.test/1", " "), (7, "x"), ("https://a.test/1", ["x"]),
    )]  # fmt: skip
    found = read(tmp_path, lines(rows), "jsonl", {"url": "URL", "caption": "TEXT"})

    assert [one.row["reason"] for one in found] == [
        "no_caption", "bad_url", "bad_url", "refused_scheme", "no_caption", "bad_url", "no_caption",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format", "content"), [("parquet", parquet(ROWS)), ("csv", comma(ROWS))]
)  # fmt: skip
def test_a_column_that_is_not_there_is_named(tmp_path, format, content):
    with pytest.raises(PermanentError, match=r"caption: text.*there are URL, TEXT"):
        read(tmp_path, content, format, {"url": "URL", "caption": "text"})


def test_what_is_damaged_is_a_fault_and_the_rest_is_read(tmp_path):
    good = lines(ROWS[:1])
    found = read(tmp_path, good + b'{"URL": \n[1]\n\n"x"\n' + b"[" * 5000 + b"\n" + good, "jsonl")
    assert [one if isinstance(one, Fault) else 0 for one in found] == [0, *["bad_records"] * 4, 0]

    rows = comma(ROWS[:2]).split(b"\r\n", 1)
    found = read(tmp_path, rows[0] + b"\r\nonly,two\r\n" + rows[1], "csv")
    assert [one if isinstance(one, Fault) else 0 for one in found] == ["bad_records", 0, 0]

    cut = gzip.compress(lines(ROWS * 5000))
    found = read(tmp_path, cut[: len(cut) // 2], "jsonl")
    assert found[-1] == Fault.TRUNCATED and len(found) > 1000

    for content in (b"", b"PAR1" + bytes(90) + b"PAR1", parquet(ROWS)[:-20]):
        assert read(tmp_path, content, "parquet") == [Fault.BAD_RECORD]


def test_a_line_without_end_is_not_held_in_memory(tmp_path):
    for format, content in (
        ("jsonl", b'"' + b"x" * (5 << 20)),
        ("csv", b'URL,TEXT\n"' + b"x" * (5 << 20)),
    ):
        found = read(tmp_path, content, format, {"url": "URL", "caption": "TEXT"})
        assert 0 < len(found) < 20 and set(found) == {Fault.BAD_RECORD}


def declared(*files):
    return CollectParams.model_validate({"files": list(files)})


TABLE = {"url": "URL", "caption": "TEXT"}


def test_kinds_are_told_by_names():
    files = declared(
        "crawl/*.warc.gz", "s3://b/x.warc.wat.gz", {"path": "crawl/*", "kind": "wat"},
        {"listing": "https://a.test/CC-MAIN-2026-30/wat.paths.gz", "prefix": "s3://commoncrawl/"},
        {"table": "l/*.parquet", **TABLE}, {"table": "x.tsv", "header": ["TEXT", "URL"], **TABLE},
    ).files  # fmt: skip

    readers = [entry.reader() for entry in files]
    assert [one["kind"] for one in readers] == ["warc", "wat", "wat", "wat", "list", "list"]
    assert [(one["format"], one["separator"]) for one in readers[4:]] == [
        ("parquet", ","), ("csv", "\t"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("crawl/*.gz", "does not tell what it is; say `kind`: wat, warc"),
        ({"listing": "paths.gz", "prefix": "x/"}, "say `kind`"),
        ({"listing": "warc.paths.gz", "prefix": "x"}, "prefix"),
        ({"listing": "warc.paths.gz", "prefix": "x/", "start": 5, "stop": 5}, "is not after start"),
        *(
            ({"listing": "warc.paths", "prefix": "x/", **given}, f"go together; missing: {missing}")
            for given, missing in (
                ({"crawls": "c.json"}, "month, {crawl} in listing"),
                ({"crawls": "c.json", "month": "2026-09"}, "{crawl} in listing"),
                ({"month": "2026-09", "listing": "{crawl}/warc.paths"}, "crawls"),
                ({"crawls": "c.json", "listing": "{crawl}/warc.paths"}, "month"),
                ({"prefix": "{crawl}/"}, "crawls, month, {crawl} in listing"),
            )
        ),
        (
            {"listing": "{crawl}/warc.paths", "prefix": "x/", "crawls": "c", "month": "2026-9"},
            "month",
        ),
        ({"table": "x.db", **TABLE}, "say `format`: parquet, csv, jsonl"),
        ({"table": "x.csv", "url": "URL"}, "caption"),
        ({"table": "x.parquet", "header": ["URL", "TEXT"], **TABLE}, "is no CSV"),
        ({"table": "x.csv", "header": ["URL", "text"], **TABLE}, "there is no ..TEXT"),
        ({"warc": "x"}, "say `path`, `listing` or `table`"),
        (7, "valid"),
    ],
)
def test_a_wrong_declaration_says_what_would_be_right(entry, message):
    with pytest.raises(ValidationError, match=message):
        declared(entry)


def test_a_listing_without_crawls_is_known_as_before_there_were_any():
    listing = {"listing": "wat.paths", "prefix": "x/"}
    identity = {**listing, "start": 0, "stop": None, "kind": None}
    assert canonical(declared(listing).identity()) == canonical({"files": [identity]})

    monthly = {**listing, "listing": "{crawl}/wat.paths", "crawls": "c.json", "month": "2026-09"}
    assert canonical(declared(monthly).identity()) == canonical(
        {"files": [{**identity, **monthly}]}
    )


def test_a_file_declared_twice_is_refused():
    with pytest.raises(ValidationError, match="'a.warc' is declared twice"):
        declared("a.warc", {"path": "a.warc", "kind": "wat"})
