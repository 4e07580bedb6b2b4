"""No request leaves for an address that is not global, however it is written."""

from __future__ import annotations

import ipaddress
import random
import socket

import pytest

from infra.gateway.addresses import check_host, parse_url, why_refused
from infra.gateway.outcomes import Outcome, Refused

REFUSED = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.1.2.3
    169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1
    192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.7
    203.0.113.9 224.0.0.1 224.0.1.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:10.0.0.1
    64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::8.8.8.8
    100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1
    2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 2620:4f:8000::1 3fff::1 4000::1 5f00::1
    fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1
    2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:127.0.0.1 2606:4700::1%eth0
""".split()
ALLOWED = """
    1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.1 172.32.0.1 192.0.1.1 198.20.0.1
    223.255.255.255 2606:4700:4700::1111 2a00:1450:4001:81b::200e 2001:4860:4860::8888
    64:ff9b::8.8.8.8 2606:4700::5efe:8.8.8.8
""".split()


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_global_is_refused(address: str) -> None:
    assert why_refused(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_a_global_address_is_allowed(address: str) -> None:
    assert why_refused(address) is None


def test_text_that_is_no_address_is_refused() -> None:
    assert why_refused("shapes.test")


def test_nothing_that_the_standard_library_calls_special_is_allowed() -> None:
    """A second opinion on 20,000 addresses, drawn near the borders of the special networks."""
    generator = random.Random(7)
    for _ in range(10_000):
        four = ipaddress.IPv4Address(generator.getrandbits(32))
        six = ipaddress.IPv6Address(
            generator.choice((0, 0x0064FF9B << 96, 0x2001 << 112, 0x2002 << 112, 0xFE80 << 112))
            | generator.getrandbits(generator.choice((32, 64, 104)))
        )
        for address in (four, six):
            special = address.is_private or address.is_multicast or address.is_reserved
            if address.is_unspecified or address.is_loopback or address.is_link_local or special:
                nat64 = address in ipaddress.ip_network("64:ff9b::/96")
                assert nat64 or why_refused(str(address)), address


HOSTS = """
    127.0.0.1 0 0.0.0.0 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0177.0.0.1 017700000001
    127.0.0.1. 0x7f.1 10.1 192.168.257 3232235777 0xa9fea9fe 169.254.169.254 134744072 0x8.8.8.8
    010.8.8.8 1.1.1.1.1 256.1.1.1 1.2.3.0x 0x localhost LOCALHOST localhost. a.localhost
    [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [fe80::1] [fe80::1%25lo] [64:ff9b::7f00:1]
    [2002:7f00:1::] 127。0。0。1 １２７.0.0.1 ①②⑦.0.0.1 [::ffff:8.8.8.8]
""".split()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_written_as_a_refused_or_unusual_address(host: str, scheme: str) -> None:
    with pytest.raises(Refused) as caught:
        check_host(parse_url(f"{scheme}://{host}/a.png"))
    assert caught.value.outcome in (Outcome.REFUSED_ADDRESS, Outcome.BAD_URL)


@pytest.mark.parametrize("host", HOSTS)
def test_the_list_of_hosts_is_dangerous(host: str) -> None:
    """The system's own resolver takes most of them for an address: what the check is for."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), 80, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pytest.skip("no address to the system's resolver")
    assert found


@pytest.mark.parametrize("host", ["8.8.8.8", "shapes.test", "a.1b", "[2606:4700:4700::1111]"])
def test_ordinary_hosts_pass(host: str) -> None:
    check_host(parse_url(f"http://{host}/a.png"))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("file:///etc/passwd", Outcome.REFUSED_SCHEME),
        ("ftp://shapes.test/a.png", Outcome.REFUSED_SCHEME),
        ("gopher://shapes.test:70/_GET", Outcome.REFUSED_SCHEME),
        ("data:image/png;base64,AAAA", Outcome.REFUSED_SCHEME),
        ("javascript:alert(1)", Outcome.REFUSED_SCHEME),
        ("/a.png", Outcome.REFUSED_SCHEME),
        ("//shapes.test/a.png", Outcome.REFUSED_SCHEME),
        ("", Outcome.REFUSED_SCHEME),
        ("http://", Outcome.BAD_URL),
        ("http:///a.png", Outcome.BAD_URL),
        ("http://user:word@shapes.test/a.png", Outcome.BAD_URL),
        ("http://127.0.0.1@shapes.test/a.png", Outcome.BAD_URL),
        ("http://shapes.test:0/a.png", Outcome.BAD_URL),
        ("http://shapes.test:99999/a.png", Outcome.BAD_URL),
        ("http://shapes.test:port/a.png", Outcome.BAD_URL),
        ("http://[::1/a.png", Outcome.BAD_URL),
        ("http://shapes.test/" + "a" * 9000, Outcome.BAD_URL),
    ],
)
def test_what_is_no_url_to_request(text: str, outcome: Outcome) -> None:
    with pytest.raises(Refused) as caught:
        parse_url(text)
    assert caught.value.outcome is outcome


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://shapes.test/a b.png#part", "http://shapes.test/a%20b.png"),
        ("http://shapes.test/%7Ea/?s=%2f", "http://shapes.test/%7Ea/?s=%2f"),
        ("http://bücher.test/ä.png", "http://xn--bcher-kva.test/%C3%A4.png"),
        ("HTTP://Shapes.TEST/A.png", "http://shapes.test/A.png"),
    ],
)
def test_a_url_is_sent_as_it_stands_where_that_is_possible(text: str, sent: str) -> None:
    assert str(parse_url(text)) == sent
