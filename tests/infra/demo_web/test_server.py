"""The demo's server: what it answers, how it misbehaves, and that its log tells the truth."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.demo_web.access_log import LogEntry, read_log, violations
from infra.demo_web.kinds import Kind, Policy
from infra.demo_web.process import serve_site
from infra.demo_web.site import Behaviour, read_site
from infra.demo_web.truth import read_truth

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(60)


class Client:
    """A plain client that goes where `hosts.json` says."""

    def __init__(self, serving):
        self.serving = serving
        self.hosts = json.loads(serving.hosts_file.read_text())["hosts"]

    def connection(self, url):
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}[parts.scheme]
        address, _, port = self.hosts[f"{parts.hostname}:{parts.port or default}"].partition(":")
        raw = socket.create_connection((address, int(port)), timeout=10)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(self.serving.ca_file))
            raw = context.wrap_socket(raw, server_hostname=parts.hostname)
        connection = http.client.HTTPConnection(parts.hostname)
        connection.sock = raw
        return connection

    def get(self, url, method="GET"):
        with contextlib.closing(self.connection(url)) as connection:
            connection.request(method, target(url), headers={"User-Agent": "TestBot/1"})
            response = connection.getresponse()
            return response, response.read()


@pytest.fixture
def client(serving):
    return Client(serving)


@pytest.fixture(scope="module")
def rows(site):
    return read_truth(site)


@pytest.fixture(scope="module")
def pages(site):
    return read_site(site)


def target(url):
    """What a request line names: path and query."""
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def first(rows, kind, detail=None):
    return next(row for row in rows if row.kind is kind and detail in (None, row.detail))


def route_of(pages, url):
    return pages.routes[urlsplit(url).netloc, target(url)]


def logged(serving, url, count=1):
    """The entries for a URL, once there are as many."""
    wanted = (urlsplit(url).netloc, target(url))
    for _ in range(200):
        found = [one for one in read_log(serving.log_file) if (one.host, one.path) == wanted]
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise AssertionError(f"the log has {len(found)} entries for {url}, not {count}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_good_images_come_over_both_schemes(client, rows, pages, scheme):
    row = next(
        row for row in rows if row.kind is Kind.GOOD and row.image_url.startswith(f"{scheme}:")
    )
    response, body = client.get(row.image_url)
    route = route_of(pages, row.image_url)
    assert (response.status, body) == (200, pages.body(route))
    assert response.getheader("Content-Type").startswith("image/")
    entry = logged(client.serving, row.image_url)[0]
    assert (entry.scheme, entry.status, entry.sent) == (scheme, 200, len(body))
    assert entry.headers["user-agent"] == "TestBot/1"


def test_pages_are_served_as_the_crawl_has_them(client, rows, pages):
    url = rows[0].page_url
    response, body = client.get(url)
    assert response.status == 200
    assert body == pages.body(route_of(pages, url))


def test_only_the_sites_own_authority_vouches_for_it(client, rows):
    url = next(row.image_url for row in rows if row.image_url.startswith("https:"))
    host = urlsplit(url).hostname
    address = ("127.0.0.1", client.serving.ports.https)
    with (
        socket.create_connection(address, timeout=10) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(raw, server_hostname=host)
    context = ssl.create_default_context(cafile=str(client.serving.ca_file))
    with (
        socket.create_connection(address, timeout=10) as raw,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(raw, server_hostname="example.test")


def test_hosts_are_told_for_both_ports(client, pages):
    names = pages.about["hosts"]
    assert set(client.hosts) == {f"{name}:{port}" for name in names for port in (80, 443)}


def test_head_has_no_body_and_other_methods_no_chance(client, rows):
    url = first(rows, Kind.GOOD).image_url
    response, body = client.get(url, "HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.getheader("Content-Length")) > 0
    assert client.get(url, "POST")[0].status == 405


def test_what_is_not_there_is_not_found(client):
    assert client.get("http://shapes.test/no/such/thing.png")[0].status == 404


def test_robots_txt_is_different_from_host_to_host(client):
    assert b"Disallow: /\n" in client.get("http://closed.test/robots.txt")[1]
    assert b"/members/" in client.get("http://gallery.test/robots.txt")[1]
    assert client.get("http://broken.test/robots.txt")[0].status == 503


def test_throttled_images_come_after_the_wait_that_was_asked_for(site, tmp_path):
    with serve_site(site, tmp_path / "log") as serving:
        fresh = Client(serving)
        for row in read_truth(site):
            if row.kind is Kind.THROTTLED:
                response, _ = fresh.get(row.image_url)
                assert response.status == 429
                after = response.getheader("Retry-After")
                if row.detail == Behaviour.THROTTLE_DATE:
                    wait = parsedate_to_datetime(after).timestamp() - time.time()
                    assert 0 < wait <= 2
                else:
                    assert after == "1"
                assert fresh.get(row.image_url)[0].status == 200


def test_who_was_told_to_wait_is_served_by_a_server_started_anew(site, tmp_path):
    url = first(read_truth(site), Kind.THROTTLED).image_url
    for status in (429, 200):
        with serve_site(site, tmp_path / "log") as serving:
            assert Client(serving).get(url)[0].status == status


def test_slow_images_are_slow_and_whole(client, rows, pages):
    url = first(rows, Kind.SLOW).image_url
    start = time.monotonic()
    _, body = client.get(url)
    assert time.monotonic() - start >= route_of(pages, url).amount
    assert body == pages.body(route_of(pages, url))


def test_redirects_lead_to_the_picture(client, rows):
    for row in rows:
        if row.kind is Kind.REDIRECTED:
            url, hops = row.image_url, 0
            response, body = client.get(url)
            while response.status in (301, 302, 303, 307, 308):
                location = response.getheader("Location")
                parts = urlsplit(url)
                slash = location.startswith("/")
                url = f"{parts.scheme}://{parts.netloc}{location}" if slash else location
                response, body = client.get(url)
                hops += 1
            assert response.status == 200
            assert body
            assert hops in (1, 2)


def test_circles_never_end(client, rows):
    start = first(rows, Kind.REDIRECT_LOOP).image_url
    url, seen = start, Counter()
    while seen[url] < 2:
        seen[url] += 1
        response, _ = client.get(url)
        assert response.status == 302
        url = response.getheader("Location")
    assert url == start


def test_broken_connections_send_less_than_they_promise(client, rows, pages):
    row = first(rows, Kind.TRUNCATED, "connection")
    with pytest.raises(http.client.IncompleteRead):
        client.get(row.image_url)
    size = route_of(pages, row.image_url).size
    entry = logged(client.serving, row.image_url)[0]
    assert 0 < entry.sent < size == entry.size


def test_stalled_answers_say_nothing_more(client, rows):
    url = first(rows, Kind.STALLED).image_url
    with contextlib.closing(client.connection(url)) as connection:
        connection.sock.settimeout(0.5)
        connection.request("GET", target(url))
        response = connection.getresponse()
        with pytest.raises(TimeoutError):
            response.read()
    assert logged(client.serving, url)[0].sent == 20


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_endless_bodies_end_when_the_client_does(client, rows, scheme):
    url = urlsplit(first(rows, Kind.ENDLESS).image_url)._replace(scheme=scheme).geturl()
    with contextlib.closing(client.connection(url)) as connection:
        connection.request("GET", target(url))
        response = connection.getresponse()
        assert response.getheader("Content-Length") is None
        assert len(response.read(3_000_000)) == 3_000_000
        response.close()
    entry = logged(client.serving, url, count=1 + (scheme == "https"))[-1]
    assert entry.scheme == scheme
    assert 3_000_000 <= entry.sent < 64_000_000


@pytest.mark.parametrize("kind", [Kind.NOAI_HEADER, Kind.TDM_HEADER])
def test_who_closes_at_a_forbidding_header_is_sent_no_body(client, rows, kind):
    row = first(rows, kind)
    with contextlib.closing(client.connection(row.image_url)) as connection:
        connection.request("GET", target(row.image_url))
        response = connection.getresponse()
        name, _, value = row.detail.partition(": ")
        assert response.getheader(name) == value
        response.close()
    polite = logged(client.serving, row.image_url)
    assert [entry.sent for entry in polite] == [0]
    assert violations(polite) == []
    _, body = client.get(row.image_url)
    rude = logged(client.serving, row.image_url, 2)[1:]
    assert [entry.sent for entry in rude] == [len(body)]
    assert "bytes were read" in violations(rude)[0]


def test_what_is_forbidden_is_told_by_the_log_when_it_is_asked_for(client, rows):
    for kind in (Kind.ROBOTS_TXT, Kind.ROBOTS_UNAVAILABLE, Kind.PAGE_OPT_OUT):
        row = first(rows, kind)
        assert client.get(row.image_url)[0].status == 200
        assert "owner forbids" in violations(logged(client.serving, row.image_url))[0]


def test_a_redirect_to_this_machine_leads_into_the_trap(client, rows):
    row = next(
        row
        for row in rows
        if row.kind is Kind.REFUSED_REDIRECT and row.detail.startswith("http://127.0.0.1")
    )
    location = client.get(row.image_url)[0].getheader("Location")
    assert urlsplit(location).port == client.serving.ports.trap
    assert violations(logged(client.serving, row.image_url)) == []
    with socket.create_connection(("127.0.0.1", urlsplit(location).port), timeout=10) as raw:
        assert raw.recv(1) == b""
    found = [entry for entry in read_log(client.serving.log_file) if entry.scheme == "trap"]
    assert len(found) == 1
    assert "refused address" in violations(found)[0]


def test_one_connection_carries_many_requests(client, rows):
    urls = [row.image_url for row in rows if row.kind is Kind.GOOD]
    same = [url for url in urls if urlsplit(url).netloc == urlsplit(urls[0]).netloc][:10]
    with contextlib.closing(client.connection(urls[0])) as connection:
        for url in same:
            connection.request("GET", target(url))
            response = connection.getresponse()
            assert response.status == 200
            response.read()


def test_garbage_ends_one_connection_and_no_other(client, rows):
    for garbage in (b"\x16\x03\x01\x00\x00 nonsense\r\n\r\n", b"GET\r\n\r\n", b"A" * 40_000):
        port = client.serving.ports.http
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(garbage)
            with contextlib.suppress(ConnectionResetError):
                assert raw.recv(100) == b""
    assert client.get(first(rows, Kind.GOOD).image_url)[0].status == 200


def test_the_server_ends_with_its_standard_input(site, tmp_path):
    with serve_site(site, tmp_path / "log") as serving:
        assert Path(f"/proc/{serving.pid}").exists()
    assert not Path(f"/proc/{serving.pid}").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", serving.ports.http), timeout=5)


def test_the_server_lives_on_without_a_pipe_until_it_is_told_to_end(site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    command = [sys.executable, "-m", "infra.demo_web", "serve", str(folder)]
    server = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert set(json.loads(server.stdout.readline())) == {"http", "https", "trap"}
        time.sleep(0.2)
        assert server.poll() is None
        server.terminate()
        assert server.wait(10) == 0


def test_a_folder_without_a_site_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="ended with status 2"), serve_site(tmp_path):
        pass


def test_allowed_requests_are_no_violations():
    fine = LogEntry(0.0, "http", "GET", "h", "/", 200, Policy.OPEN, 10, 10)
    unread = LogEntry(0.0, "http", "GET", "h", "/", 200, Policy.NEVER_READ, 0, 10)
    assert violations([fine, unread]) == []
