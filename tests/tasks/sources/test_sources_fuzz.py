"""Hostile and broken input, drawn by hypothesis: nothing crashes, hangs or fills the memory.

500 cases of each kind; as many as $TAPIR_FUZZ_EXAMPLES says where it is set (`make test-all`).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import time

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.records import DROP_SCHEMA, PAIR_SCHEMA
from tasks.sources.pages import pairs_of_page
from tasks.sources.url_lists import pairs_of_list
from tasks.sources.warc import Fault, Page, read_pages
from tasks.sources.wat import pairs_of_wat
from tests.tasks.sources.plain_pages import wat_of_page
from tests.tasks.sources.web_pages import page

CASES = int(os.environ.get("TAPIR_FUZZ_EXAMPLES", "500"))
MOST_SECONDS = 5.0  # of one case, which has some kilobytes
MOST_MEMORY = 1 << 30  # bytes that all cases together may add

fuzz = settings(
    max_examples=CASES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

TEXT = st.text(max_size=12) | st.sampled_from(
    ["", " ", "a.png", "../x", "http://[", "//", "data:x", "javascript:", "{{", "\0", "\ud800",
     "1w", "2x, b", "(((", "&#x110000;", "&nbsp", "\u202e", "noai", "1", "é" * 99, "a 9w, b 8w"]
)  # fmt: skip
TAGS = (
    "img figure figcaption picture source meta base a link b p svg table template noscript script"
    " title select form math frameset x:y"
).split()
ATTRIBUTES = (
    "src srcset data-src data-srcset alt title href rel content property name charset type = '"
).split()
PROPERTIES = ["og:image", "og:image:alt", "og:title", "robots", "license", "utf-7"]
BETWEEN = ["<!--", "-->", "<![CDATA[", "<!doctype", "<", "</", "'>", "\0", "text"]
VALUES = TEXT | st.sampled_from(PROPERTIES)

START = st.builds(
    lambda name, said, quote, end: (
        f"<{name}{''.join(f' {key}={quote}{value}{quote}' for key, value in said)}{end}"
    ),
    st.sampled_from(TAGS),
    st.lists(st.tuples(st.sampled_from(ATTRIBUTES), VALUES), max_size=3),
    st.sampled_from(["'", '"', ""]),
    st.sampled_from([">", ">", "/>", "", " "]),
)
PART = START | st.sampled_from([f"</{name}>" for name in TAGS]) | st.sampled_from(BETWEEN)
HTML = st.builds(
    lambda parts, times: "".join(parts) * times, st.lists(PART, max_size=8), st.integers(1, 60)
)
SEEDS = st.integers(0, 2**32)


def damage(content, seed):
    """The same with bytes changed, cut out, doubled."""
    rng, made = random.Random(seed), bytearray(content)
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(made) + 1)
        change = rng.randrange(4)
        if change == 0:
            made[at : at + 1] = rng.randbytes(1)
        elif change == 1:
            del made[at : at + rng.randrange(500)]
        elif change == 2:
            made[at:at] = made[at : at + rng.randrange(500)]
        else:
            made[at:at] = rng.randbytes(rng.randrange(40))
    return bytes(made)


@pytest.fixture(scope="module")
def memory():
    """The most memory that this process has had, before."""
    return _peak()


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(found, memory):
    """Rows that tables take, in time and in memory; how many there were."""
    start = time.process_time()
    kept, dropped, faults = [], [], 0
    for one in found:
        if isinstance(one, Fault):
            faults += 1
        else:
            (dropped if one.dropped else kept).append(one.row)
    pa.Table.from_pylist(kept, schema=PAIR_SCHEMA)
    pa.Table.from_pylist(dropped, schema=DROP_SCHEMA)
    assert time.process_time() - start < MOST_SECONDS
    assert _peak() - memory < MOST_MEMORY
    for row in kept:
        assert row["image_url"].startswith(("http://", "https://")) and row["image_url"].isascii()
        assert row["caption"] == row["caption"].strip() != ""


@fuzz
@given(HTML, st.sampled_from([None, "utf-8", "utf-16", "latin-1", "big5", "shift_jis", "x", "\0"]))
def test_any_html(memory, html, charset):
    content = html.encode("utf-8", "surrogatepass")
    found = pairs_of_page(Page("http://a.test/d/", content, charset, {}, 0), "x")
    check(found, memory)


PAGES = [(url, html, json.dumps(wat_of_page(url, html))) for url, html in map(page, range(25))]


@fuzz
@given(st.sampled_from(PAGES), SEEDS)
def test_damaged_pages(memory, given_page, seed):
    url, html, _ = given_page
    found = pairs_of_page(Page(url, damage(html.encode(), seed), None, {}, 0), "x")
    check(found, memory)


ODD = [
    None, True, -1, 1e308, "", "\ud800", "x" * 9000, [], {}, [[]], [None], {"": 1}, [{}], ["x"],
    [{"path": "IMG@/src", "url": 1}], [{"path": "IMG@/src", "url": "a", "alt": ["x"]}],
]  # fmt: skip


def mutate(value, rng):
    """A mapping with some of its values replaced by odd ones, and some of its keys left out."""
    if rng.random() < 0.02:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {key: mutate(inner, rng) for key, inner in value.items() if rng.random() > 0.01}
    return [mutate(inner, rng) for inner in value] if isinstance(value, list) else value


def record(kind, payload, packed):
    """A WARC record, always the same bytes."""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
    content = head.encode() + payload + b"\r\n\r\n"
    return gzip.compress(content, mtime=0) if packed else content


@fuzz
@given(st.sampled_from(PAGES), SEEDS, st.booleans(), st.booleans())
def test_any_link_metadata(tmp_path_factory, memory, given_page, seed, packed, broken):
    odd = mutate(json.loads(given_page[2]), random.Random(seed))
    content = record("metadata", json.dumps(odd).encode(), packed)
    content += record("metadata", given_page[2].encode(), packed)
    path = tmp_path_factory.getbasetemp() / "x.wat.gz"
    path.write_bytes(damage(content, seed) if broken else content)
    flat = (
        one
        for found in pairs_of_wat(path, "x")
        for one in ([found] if isinstance(found, Fault) else found)
    )
    check(flat, memory)


@fuzz
@given(SEEDS, st.booleans(), st.booleans())
def test_damaged_warc_files(tmp_path_factory, memory, seed, packed, chunked):
    encoding = "Transfer-Encoding: chunked\r\n" if chunked else "Content-Encoding: gzip\r\n"
    body = b"5\r\n<img>\r\n0\r\n\r\n" if chunked else gzip.compress(b"<img>" * 50, mtime=0)
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{encoding}\r\n".encode() + body
    path = tmp_path_factory.getbasetemp() / "x.warc.gz"
    path.write_bytes(damage(b"".join([record("response", answer, packed)] * 4), seed))
    assert len(list(read_pages(path))) < 20
    assert _peak() - memory < MOST_MEMORY


@fuzz
@given(st.sampled_from(["csv", "jsonl"]), st.lists(st.tuples(VALUES, VALUES), max_size=4), SEEDS)
def test_any_list(tmp_path_factory, memory, kind, rows, seed):
    if kind == "csv":
        text = "\n".join(f"{url},{caption}" for url, caption in rows)
    else:
        text = "\n".join(json.dumps({"u": url, "c": caption}) for url, caption in rows)
    path = tmp_path_factory.getbasetemp() / "list"
    rest = damage(text.encode("utf-8", "replace"), seed)
    path.write_bytes((b"u,c\n" if kind == "csv" else b"") + rest)
    found = pairs_of_list(path, "list", kind, {"url": "u", "caption": "c"})
    check(found, memory)
