"""The address that was checked is the one connected to, and TLS verifies the name."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.gateway.outcomes import Outcome, Refused
from infra.gateway.resolver import PinnedResolver, PrivateHosts, public_tls
from tests.infra.gateway.harness import answer, bench, image, run

PUBLIC = "93.184.216.34"


class Names:
    """A name server that gives one list of addresses after the other and keeps to the last."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Where connections were tried to; those to other places than loopback fail at once."""
    tried: list[tuple[Any, ...]] = []
    original = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def recording(self: Any, sock: socket.socket, address: tuple[Any, ...]) -> Any:
        tried.append(tuple(address[:2]))
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError(111, "no network in tests")
        return await original(self, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", recording)
    return tried


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["fe80::1%lo"],
        ["169.254.169.254"],
        [PUBLIC, "10.0.0.1"],
    ],
)
def test_a_name_with_any_address_that_is_not_global_is_refused(
    tmp_path: Path, addresses: list[str], connected: list[tuple[Any, ...]]
) -> None:
    async def test() -> None:
        async with bench(tmp_path, hosts=(), lookup=Names(addresses)) as b:
            attempt = (await b.get("http://sly.test/a.png")).attempt
            assert attempt.outcome is Outcome.REFUSED_ADDRESS
            assert attempt.detail == "sly.test has an address that is not global"
            assert not connected

    run(test())


def test_a_name_that_changes_between_check_and_connect(
    tmp_path: Path, connected: list[tuple[Any, ...]]
) -> None:
    """One lookup, and the connection goes where that lookup said: the second answer is unseen."""

    async def test() -> None:
        names = Names([PUBLIC], ["127.0.0.1"])
        async with bench(tmp_path, hosts=(), lookup=names) as b:
            await b.get(f"http://sly.test:{b.web.port}/a.png")
            assert names.asked == 1
            assert connected == [(PUBLIC, b.web.port)]
            assert not b.web.log

    run(test())


def test_a_name_that_changes_between_robots_and_image(
    tmp_path: Path, connected: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the name is looked up again, it is checked again."""
    monkeypatch.setattr("infra.gateway.connect._NAME_LIFETIME", 0)

    async def test() -> None:
        async with bench(tmp_path, hosts=("sly.test",)) as b:
            # robots.txt is served while the name is private by permission; the image is on
            # another port, for which the name server alone speaks.
            b.web.routes["/a.png"] = answer(302, Location=f"http://sly.test:{b.web.port}/b.png")
            b.web.routes["/b.png"] = image()
            b.gateway._fetcher._connections._resolver._lookup = Names(["127.0.0.1"])
            attempt = (await b.get("http://sly.test/a.png")).attempt
            assert attempt.outcome is Outcome.REFUSED_ADDRESS
            assert b.web.asked("/b.png") == 0

    run(test())


def test_the_socket_is_checked_even_if_the_resolver_were_wrong(
    tmp_path: Path, connected: list[tuple[Any, ...]]
) -> None:
    async def test() -> None:
        async with bench(tmp_path, hosts=()) as b:

            async def resolve(host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
                return [
                    {"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6,
                     "flags": 0}
                ]  # fmt: skip

            b.gateway._fetcher._connections._resolver.resolve = resolve  # type: ignore[assignment]
            attempt = (await b.get(f"http://sly.test:{b.web.port}/a.png")).attempt
            assert attempt.outcome is Outcome.REFUSED_ADDRESS
            assert attempt.detail == "the address is not global"
            assert not connected

    run(test())


def test_a_private_host_is_private_on_its_very_port_only() -> None:
    async def test() -> None:
        private = PrivateHosts({"shapes.test:80": ("127.0.0.1", 4000)})
        resolver = PinnedResolver(private, Names([PUBLIC]))
        assert (await resolver.resolve("SHAPES.test", 80))[0]["port"] == 4000
        assert (await resolver.resolve("shapes.test", 81))[0]["host"] == PUBLIC
        assert (await resolver.resolve("a.shapes.test", 80))[0]["host"] == PUBLIC
        resolver.check(("127.0.0.1", 4000))
        for address in (("127.0.0.1", 80), ("127.0.0.1", 4001), ("10.0.0.1", 4000)):
            with pytest.raises(Refused):
                resolver.check(address)
        await resolver.close()

    run(test())


@pytest.mark.parametrize("hosts", [{"shapes.test": "127.0.0.1:1"}, {"shapes.test:80": "4000"}])
def test_a_file_of_private_hosts_that_is_wrong_says_where(tmp_path: Path, hosts: object) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"hosts": hosts}))
    with pytest.raises(ValueError, match=r"hosts\.json: 'shapes\.test"):
        PrivateHosts.read(path)


# TLS


def certificate(folder: Path, *names: str, days: int = 1) -> ssl.SSLContext:
    """A server context with a certificate for these names, signed by `folder/ca.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(pem + secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.mark.parametrize(
    ("names", "days", "ca_file", "error"),
    [
        (("shapes.test",), 1, "ca.pem", None),
        (("other.test",), 1, "ca.pem", "certificate"),  # another name
        (("shapes.test",), -1, "ca.pem", "certificate"),  # expired
        (("shapes.test",), 1, None, "certificate"),  # not trusted
    ],
)
def test_certificates_are_verified_against_the_name(
    tmp_path: Path, names: tuple[str, ...], days: int, ca_file: str | None, error: str | None
) -> None:
    async def test() -> None:
        tls = certificate(tmp_path, *names, days=days)
        async with bench(tmp_path, tls=tls, ca_file=ca_file) as b:
            b.web.routes["/a.png"] = image()
            attempt = (await b.get("https://shapes.test/a.png")).attempt
            if error is None:
                assert attempt.ok
                assert [entry[1] for entry in b.web.log] == ["https", "https"]
            else:
                assert attempt.outcome is Outcome.TLS_ERROR
                assert attempt.detail == "the certificate does not hold"
                assert not b.web.log

    run(test())


def test_the_operators_certificate_is_trusted_for_private_hosts_only(tmp_path: Path) -> None:
    certificate(tmp_path, "shapes.test")
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"hosts": {}, "ca_file": "ca.pem"}))
    subjects = [entry["subject"] for entry in public_tls().get_ca_certs()]
    assert PrivateHosts.read(path).tls is not public_tls()
    assert ((("commonName", "test"),),) not in subjects


def test_plain_http_on_a_tls_port_is_no_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            hosts = {"hosts": {"shapes.test:443": f"127.0.0.1:{b.web.port}"}}
            (tmp_path / "hosts.json").write_text(json.dumps(hosts))
            private = PrivateHosts.read(tmp_path / "hosts.json")
            b.gateway._fetcher._connections.private = private
            b.gateway._fetcher._connections._resolver._private = private
            attempt = (await b.get("https://shapes.test/a.png")).attempt
            assert attempt.outcome is Outcome.TLS_ERROR

    run(test())


@pytest.mark.parametrize("allowed", [False, True])
def test_https_is_not_left_for_http_unless_allowed(tmp_path: Path, allowed: bool) -> None:
    async def test() -> None:
        tls = certificate(tmp_path, "shapes.test")
        async with bench(tmp_path, tls=tls, ca_file="ca.pem", allow_downgrade=allowed) as b:
            b.web.routes["/a.png"] = answer(302, Location="http://shapes.test/b.png")
            b.web.routes["/b.png"] = image()
            outcome = (await b.get("https://shapes.test/a.png")).attempt.outcome
            assert outcome is (Outcome.OK if allowed else Outcome.REFUSED_SCHEME)
            assert b.web.asked("/b.png") == allowed

    run(test())
