"""The gateway as a program: a door on loopback for keys, closed to everything else."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.gateway.client import RunningGateway
from infra.gateway.config import GatewayConfig
from infra.gateway.journal import JournalReader
from infra.gateway.outcomes import url_key
from infra.gateway.table import UrlTable
from tests.infra.gateway.harness import configure
from tests.tasks.web import requests, serving

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
SITE = {
    "a.test/1.png": {"body": PIXEL, "headers": {"Set-Cookie": "seen=1"}},
    "a.test/2.png": {"body": PIXEL},
    "a.test/500.png": {"status": 500},
}


@pytest.fixture(scope="module")
def door(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningGateway, GatewayConfig, Path]]:
    folder = tmp_path_factory.mktemp("door")
    with pytest.MonkeyPatch.context() as patch, serving(folder / "web", SITE) as hosts:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")  # nobody listens: whoever uses it fails
        config = configure(folder, private_hosts=hosts)
        with UrlTable(config.table, write=True) as table:
            table.want("one", [(url_key(f"http://{name}"), f"http://{name}") for name in SITE])
        with RunningGateway(config, folder / "gateway.log") as gateway:
            yield gateway, config, folder / "web"


def ask(gateway: RunningGateway, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.reason, response.read()


Door = tuple[RunningGateway, GatewayConfig, Path]


def test_a_key_gives_the_image_although_the_environment_names_a_proxy(door: Door) -> None:
    for name in ("a.test/1.png", "a.test/2.png"):
        status, _, body = ask(door[0], f"/{url_key('http://' + name)}")
        assert (status, body[:4]) == (200, b"\x89PNG")


def test_a_failure_that_may_pass_is_told_from_one_that_will_not(door: Door) -> None:
    gateway, config, web = door
    key = url_key("http://a.test/500.png")
    assert [ask(gateway, f"/{key}")[:2] for _ in range(3)] == [(503, "http_5xx")] * 3
    assert requests(web)["a.test/500.png"] == config.attempts


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/" + "0" * 32, 404),
        ("GET", "/http://a.test/1.png", 404),
        ("GET", "http://a.test/1.png", 404),
        ("GET", "/../../etc/passwd", 404),
        ("POST", "/" + url_key("http://a.test/1.png"), 405),
        ("HEAD", "/" + url_key("http://a.test/1.png"), 405),
    ],
)
def test_nothing_but_keys_of_the_table(door: Door, method: str, path: str, status: int) -> None:
    assert ask(door[0], path, method)[0] == status


def test_it_is_no_proxy(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door[0].port), 5) as connection:
        connection.sendall(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
        assert b" 200 " not in connection.recv(1000).splitlines()[0]


def test_it_listens_on_loopback_only(door: Door) -> None:
    process = psutil.Process(door[0].process.pid)
    listening = [
        connection.laddr.ip
        for one in process.children(recursive=True)
        for connection in one.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


def test_counters_tell_what_came_of_the_keys(door: Door) -> None:
    key = url_key("http://a.test/1.png")
    before = json.loads(ask(door[0], "/")[2])
    ask(door[0], f"/{key}")
    after = json.loads(ask(door[0], "/")[2])
    assert after["from_journal"] == before.get("from_journal", 0) + ("ok" in before)


def test_sigterm_ends_it_with_the_journal_whole(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with UrlTable(config.table, write=True) as table:
        table.want("one", [("a" * 32, "http://127.0.0.1/x.png")])
    gateway = RunningGateway(config, tmp_path / "gateway.log")
    assert ask(gateway, "/" + "a" * 32)[1] == "refused_address"
    started = time.monotonic()
    assert gateway.process.terminate(10) == 0
    assert time.monotonic() - started < 5
    with JournalReader(config.journal) as journal:
        assert journal.counts() == {"refused_address": 1, "requests": 0}
    assert '"refused_address": 1' in (tmp_path / "gateway.log").read_text()
    assert not os.path.exists(f"/proc/{gateway.process.pid}")
