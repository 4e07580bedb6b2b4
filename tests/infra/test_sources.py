"""Sources: what is declared is found and pinned, and nothing else is read."""

import gzip
import json
import logging
import os
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from infra import http_source
from infra.environment import Environment
from infra.errors import PermanentError
from infra.sources import fetch_source, resolve_sources
from schemas.stage import Listing, Source
from tests.s3 import s3_server


class Site(ThreadingHTTPServer):
    """Files by path; `odd` are answers by path, each a function of the handler."""

    def __init__(self):
        self.files, self.odd, self.asked = {}, {}, []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site, path = self.server, self.path.lstrip("/")
        site.asked.append((path, self.headers.get("Range")))
        if path in site.odd:
            site.odd[path](self)
        elif path in site.files:
            self.answer(site.files[path])
        else:
            self.send_error(404)

    def answer(self, content, status=200, etag=None, length=None, promised=None):
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        end = 1 if self.headers.get("Range") == "bytes=0-0" else len(content)
        part = content[start:end]
        self.send_response(206 if self.headers.get("Range") else status)
        self.send_header("Content-Length", str(promised or len(part)))
        self.send_header("ETag", etag or f'"{hash(content)}"')
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{length or len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *words):
        """Say nothing."""


@contextmanager
def serving():
    site = Site()
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()
        thread.join()


@pytest.fixture
def site():
    with serving() as site:
        yield site


@pytest.fixture
def here(tmp_path):
    return Environment(home=tmp_path, dask="inline")


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(http_source, "_PAUSE", 0.01)


def names(sources):
    return [source.name for source in sources]


def test_paths_globs_and_home_are_found_once_and_in_order(tmp_path, here):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.warc").write_bytes(name.encode())
    found = resolve_sources(
        (str(tmp_path / "c.warc"), "home://*.warc", str(tmp_path / "a.warc")), here
    )

    assert names(found) == ["c.warc", "a.warc", "b.warc"]
    assert [one.declared for one in found] == [str(tmp_path / "c.warc"), *["home://*.warc"] * 2]


def test_a_local_file_replaced_under_its_name_is_noticed(tmp_path, here):
    path = tmp_path / "a.warc"
    path.write_bytes(b"one")
    (before,) = resolve_sources((str(path),), here)
    written = path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=(written, written))  # neither size nor time tells

    with pytest.raises(PermanentError, match="changed after the run began"):
        fetch_source(before, tmp_path / "f")
    (after,) = resolve_sources((str(path),), here)
    assert after.identity != before.identity


def test_a_web_file_is_pinned_and_fetched(tmp_path, here, site):
    site.files["x/a.warc.gz?v=1"] = bytes(range(256)) * 9000
    (found,) = resolve_sources((f"{site.url}/x/a.warc.gz?v=1",), here)

    assert (found.name, found.size) == ("a.warc.gz", 256 * 9000)
    assert fetch_source(found, tmp_path / "f").read_bytes() == site.files["x/a.warc.gz?v=1"]


def test_a_web_file_replaced_under_its_name_is_noticed(tmp_path, here, site):
    site.files["a.warc"] = b"one"
    (before,) = resolve_sources((f"{site.url}/a.warc",), here)
    site.files["a.warc"] = b"two"

    with pytest.raises(PermanentError, match="changed after the run began"):
        fetch_source(before, tmp_path / "f")
    (after,) = resolve_sources((f"{site.url}/a.warc",), here)
    assert after.identity != before.identity


def test_a_broken_transfer_is_taken_up_where_it_broke(tmp_path, here, site):
    content = bytes(range(256)) * 5000
    site.files["a.warc"] = content
    (found,) = resolve_sources((f"{site.url}/a.warc",), here)
    broken = []

    def breaks(handler):
        if len(broken) < 2:
            broken.append(1)
            start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
            handler.send_response(206 if start else 200)
            handler.send_header("Content-Length", str(len(content) - start))
            handler.send_header("ETag", f'"{hash(content)}"')
            total = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", total)
            handler.end_headers()
            handler.wfile.write(content[start : start + 100_000])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            handler.answer(content)

    site.odd["a.warc"] = breaks
    assert fetch_source(found, tmp_path / "f").read_bytes() == content
    assert [one[1] for one in site.asked[1:]] == [None, "bytes=100000-", "bytes=200000-"]


def test_no_more_is_read_than_was_announced(tmp_path, here, site):
    site.files["a.warc"] = b"abc"
    (found,) = resolve_sources((f"{site.url}/a.warc",), here)

    def sends_more(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "3")
        handler.send_header("ETag", f'"{hash(b"abc")}"')
        handler.end_headers()
        handler.wfile.write(b"abc" + b"x" * 1_000_000)

    site.odd["a.warc"] = sends_more
    assert fetch_source(found, tmp_path / "f").read_bytes() == b"abc"


def test_a_redirect_to_a_private_address_is_not_followed(here, site):
    with serving() as other:
        other.files["secret"] = b"s"
        targets = (
            f"{other.url}/secret", f"http://localhost:{other.server_address[1]}/secret",
            "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://2130706433/",
            "file:///etc/passwd",
        )  # fmt: skip
        for target in targets:
            site.odd["a.warc"] = _redirect(target)
            with pytest.raises(PermanentError, match=r"a\.warc"):
                resolve_sources((f"{site.url}/a.warc",), here)
        assert other.asked == []


def test_redirects_of_one_host_are_followed_and_not_in_circles(here, site):
    site.odd["a.warc"], site.files["b"] = _redirect("/b"), b"there"
    assert resolve_sources((f"{site.url}/a.warc",), here)[0].size == 5

    site.odd["b"] = _redirect("/a.warc")
    with pytest.raises(PermanentError, match="more than 5 redirects"):
        resolve_sources((f"{site.url}/a.warc",), here)


def _redirect(target):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_a_server_that_is_busy_is_asked_again(here, site):
    site.files["a.warc"], busy = b"abc", [1, 2]

    def sometimes(handler):
        return handler.send_error(503) if busy and busy.pop() else handler.answer(b"abc")

    site.odd["a.warc"] = sometimes
    assert resolve_sources((f"{site.url}/a.warc",), here)[0].size == 3
    site.odd["a.warc"] = lambda handler: handler.send_error(500)
    with pytest.raises(ConnectionError, match="status 500"):
        resolve_sources((f"{site.url}/a.warc",), here)


def test_a_server_that_tells_no_version_is_refused(here, site):
    def silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "3")
        handler.end_headers()
        handler.wfile.write(b"abc")

    site.odd["a.warc"] = silent
    with pytest.raises(PermanentError, match="neither ETag nor"):
        resolve_sources((f"{site.url}/a.warc",), here)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://a.test/x", "cannot be read"), ("file:///etc/passwd", "cannot be read"),
        ("simplecache::http://a.test/x", "cannot be read"), ("http://a.test/*", "does not say"),
        ("github://a:b@/x", "cannot be read"), ("http://me:secret@a.test/x", "names a user"),
    ],
)  # fmt: skip
def test_other_places_are_refused(here, url, message):
    with pytest.raises(PermanentError, match=message):
        resolve_sources((url,), here)


def _listing(tmp_path, lines, packed=True):
    content = "\n".join(lines).encode()
    path = tmp_path / ("warc.paths.gz" if packed else "warc.paths")
    path.write_bytes(gzip.compress(content) if packed else content)
    return str(path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_range_of_a_listing_is_read_below_its_prefix(tmp_path, here, packed):
    (tmp_path / "crawl" / "seg").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "crawl" / "seg" / f"{number}.warc").write_bytes(bytes([number]))
    listing = _listing(tmp_path, [f"seg/{n}.warc" for n in range(5)], packed)

    def found(**options):
        return names(
            resolve_sources((Listing(listing=listing, prefix="home://crawl/", **options),), here)
        )

    assert found() == [f"{n}.warc" for n in range(5)]
    assert found(start=1, stop=3) == ["1.warc", "2.warc"]
    assert found(start=4, stop=99) == ["4.warc"]
    with pytest.raises(PermanentError, match="start is 5"):
        found(start=5)


def test_a_listing_and_its_files_may_be_on_the_web(tmp_path, here, site):
    site.files["wat.paths.gz"] = gzip.compress(b"crawl/a.wat.gz\ncrawl/b.wat.gz\n")
    site.files["data/crawl/a.wat.gz"] = b"a"
    listing = Listing(listing=f"{site.url}/wat.paths.gz", prefix=f"{site.url}/data/")

    with pytest.raises(PermanentError, match=r"b\.wat\.gz', which .*wat\.paths.* lists, is"):
        resolve_sources((listing,), here)
    site.files["data/crawl/b.wat.gz"] = b"b"
    found = resolve_sources((listing,), here)
    assert names(found) == ["a.wat.gz", "b.wat.gz"]
    assert {one.declared for one in found} == {listing.label}


@pytest.mark.parametrize(
    "line",
    ["/etc/passwd", "../x", "a/../../x", "a/..", "http://b.test/x", "home://x", "a::b", "", "a b",
     "*.warc", "a\\b", "a?b", "a#b", "s3:x", "./x", "é" * 10 + "\x00"],
)  # fmt: skip
def test_a_listing_cannot_name_what_is_not_below_its_prefix(tmp_path, here, line):
    listing = Listing(listing=_listing(tmp_path, ["seg/x", line, "y"]), prefix="/nowhere/", start=1)

    with pytest.raises(PermanentError, match="line 2, .* is no relative path"):
        resolve_sources((listing,), here)


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08junk", gzip.compress(b"a" * 900)[:-9], b"\xff\xfe"]
)
def test_a_broken_listing_is_refused(tmp_path, here, content):
    (tmp_path / "warc.paths.gz").write_bytes(content)
    with pytest.raises(PermanentError, match=r"warc\.paths\.gz: it is no text"):
        resolve_sources((Listing(listing="home://warc.paths.gz", prefix="home://"),), here)


def test_a_listing_that_unpacks_to_gigabytes_is_not_read(tmp_path, here):
    (tmp_path / "warc.paths.gz").write_bytes(gzip.compress(bytes(80 << 20), 1))
    with pytest.raises(PermanentError, match="are read"):
        resolve_sources((Listing(listing="home://warc.paths.gz", prefix="home://"),), here)


def _crawl(number, to):
    """An entry as Common Crawl writes it (2026)."""
    url = f"https://index.a.test/CC-MAIN-2026-{number}"
    return {
        "id": f"CC-MAIN-2026-{number}", "name": "Index", "timegate": f"{url}/",
        "cdx-api": f"{url}-index", "from": "2026-01-12T16:12:39", "to": to,
    }  # fmt: skip


def _by_month(place, month, **options):
    return Listing(
        listing=f"{place}/{{crawl}}/wat.paths", prefix=f"{place}/", month=month,
        **{"crawls": f"{place}/collinfo.json", **options},
    )  # fmt: skip


def _publish(put, crawls):
    put("collinfo.json", json.dumps(crawls).encode())
    for name in (one["id"] for one in crawls):
        put(f"{name}/wat.paths", f"{name}/a.wat.gz\n{name}/b.wat.gz\n".encode())
        for letter in "ab":
            put(f"{name}/{letter}.wat.gz", name.encode())


def _on_disk(folder):
    def put(name, content):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return put


# The newest comes first, as there; 34 ended in August by its own clock, in September by UTC.
CRAWLS = [
    _crawl(42, "2026-10-01T00:00:00"), _crawl(38, "2026-09-30T23:59:59"),
    _crawl(34, "2026-08-31T23:30:00-01:00"), _crawl(30, "2026-07-31T10:00:00Z"),
]  # fmt: skip


@pytest.mark.parametrize("web", [False, True])
def test_a_month_stands_for_the_crawls_that_ended_in_it(tmp_path, here, site, caplog, web):
    _publish(site.files.__setitem__ if web else _on_disk(tmp_path), CRAWLS)
    place = site.url if web else str(tmp_path)
    months = ("2026-07", "2026-08", "2026-09", "2026-10", "2026-11")
    entries = [_by_month(place, month, stop=1) for month in months]
    with caplog.at_level(logging.WARNING):
        found = resolve_sources(entries, here)

    # The URI names the crawl, the label is one a month and that of the entry.
    expected = [(30, 0), (34, 2), (38, 2), (42, 3)]
    assert [(one.uri, one.declared) for one in found] == [
        (f"{place}/CC-MAIN-2026-{number}/a.wat.gz", entries[entry].label)
        for number, entry in expected
    ]
    assert entries[2].label == f"{place}/{{crawl}}/wat.paths[0:1] of 2026-09"
    (said,) = (one.message for one in caplog.records)
    assert "collinfo.json: no crawl ended in 2026-08, 2026-11: nothing is read" in said
    # One list for all: every month is of the same state of it.
    assert len([path for path, _ in site.asked if path == "collinfo.json"]) == (1 if web else 0)


def test_without_any_crawl_the_sources_are_missing(tmp_path, here):
    _publish(_on_disk(tmp_path), CRAWLS)
    with pytest.raises(PermanentError, match=r"missing: .*: no crawl ended in 2026-08, 2026-11$"):
        resolve_sources([_by_month(str(tmp_path), f"2026-{month}") for month in ("11", "08")], here)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "it is empty"), (b'{"id": "x"}', "valid array"),
        (b"<html>", "it is no list of crawls"), (b"[" * 100_000, "it is no list of crawls"),
        (b"[1]", "entry 1, 1: "), (b" " * (1 << 20) + b"[]", "at most 1048576 bytes"),
        (gzip.compress(bytes(2 << 20)), "at most 1048576 bytes"),
        *(
            (json.dumps([CRAWLS[0], {**CRAWLS[1], **changed}]).encode(), f"entry 2, {{.*: {name}: ")
            for name, values in (
                ("id", ["", "..", "a/b", "../x", "a?b", "a*", "é", "x\n", "x" * 101, 7, None]),
                ("to", ["", "2026", "2026-13-01", "20260912000000", 1789000000, True, None,
                        "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"]),
            )
            for changed in ({name: value} for value in values)
        ),
        (json.dumps([CRAWLS[0], {"id": "x"}]).encode(), "entry 2, .*: to: Field required"),
    ],
)  # fmt: skip
def test_a_list_of_crawls_is_not_trusted(tmp_path, here, content, message):
    (tmp_path / "collinfo.json").write_bytes(content)
    with pytest.raises(PermanentError, match=rf"collinfo\.json: .*{message}"):
        resolve_sources((_by_month("home:/", "2026-09"),), here)


def test_a_list_of_crawls_may_tell_no_version_and_is_read_up_to_a_bound(here, site):
    def silent(content, promised=None, broken=0):
        def answer(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", str(promised or len(content)))
            handler.end_headers()
            tries.append(len(content))
            handler.wfile.write(content[: 9 if len(tries) <= broken else None])
            handler.close_connection = True

        return answer

    _publish(site.files.__setitem__, CRAWLS)
    content, tries = json.dumps(CRAWLS).encode(), []
    site.odd["collinfo.json"] = silent(content, broken=1)
    assert names(resolve_sources((_by_month(site.url, "2026-09"),), here)) == [
        *["a.wat.gz", "b.wat.gz"] * 2
    ]
    assert len(tries) == 2  # the first answer broke off

    site.odd["collinfo.json"] = silent(b" " * (1 << 20) + b"[]", promised=1 << 40)
    with pytest.raises(PermanentError, match="at most 1048576 bytes"):
        resolve_sources((_by_month(site.url, "2026-09"),), here)
    site.odd["collinfo.json"] = lambda handler: handler.send_error(404)
    with pytest.raises(PermanentError, match=r"collinfo\.json: status 404"):
        resolve_sources((_by_month(site.url, "2026-09"),), here)


def test_an_object_store_is_read_and_a_replaced_object_is_noticed(tmp_path, here):
    with s3_server() as url:
        store = fsspec.filesystem("s3")
        for name in ("b", "a"):
            store.pipe(f"{url}/{name}.warc".removeprefix("s3://"), name.encode())
        found = resolve_sources((f"{url}/*.warc",), here)
        assert names(found) == ["a.warc", "b.warc"]
        assert fetch_source(found[0], tmp_path / "f").read_bytes() == b"a"
        store.pipe(f"{url}/a.warc".removeprefix("s3://"), b"z")
        with pytest.raises(PermanentError, match="changed after the run began"):
            fetch_source(found[0], tmp_path / "f")


def test_a_manifest_of_before_is_still_read():
    old = '{"uri": "/x", "name": "x", "size": 1, "identity": "sha256:0"}'
    assert Source.model_validate_json(old).declared == ""
