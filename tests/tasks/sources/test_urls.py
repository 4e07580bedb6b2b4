"""Addresses on pages become URLs that can be asked for, or are refused with a reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import DropReason
from tasks.sources import urls
from tasks.sources.urls import UnusableAddress, absolute_url, host_of

BASE = "http://a.test/dir/page.html?x=1"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("i.png", "http://a.test/dir/i.png"),
        ("/i.png", "http://a.test/i.png"),
        ("../i.png", "http://a.test/i.png"),
        ("../../../i.png", "http://a.test/i.png"),
        ("//b.test/i.png", "http://b.test/i.png"),
        ("?y=2", "http://a.test/dir/page.html?y=2"),
        ("HTTPS://B.Test:443/I.png#part", "https://b.test/I.png"),
        ("http://b.test:8080", "http://b.test:8080/"),
        ("  i.png\n", "http://a.test/dir/i.png"),
        ("a\nb.png", "http://a.test/dir/ab.png"),
        ("images\\i.png", "http://a.test/dir/images/i.png"),
        ("i.png?back\\slash", "http://a.test/dir/i.png?back%5Cslash"),
        ("a b.png", "http://a.test/dir/a%20b.png"),
        ("a%20b.png?q=%C3%A9", "http://a.test/dir/a%20b.png?q=%C3%A9"),
        ("Käfer.png?größe=1", "http://a.test/dir/K%C3%A4fer.png?gr%C3%B6%C3%9Fe=1"),
        ("http://bücher.test/i", "http://xn--bcher-kva.test/i"),
        ("http://[2001:DB8::1]/i", "http://[2001:db8::1]/i"),
        ("http://127.0.0.1/i", "http://127.0.0.1/i"),  # the gateway judges addresses
    ],
)
def test_addresses_are_made_absolute_and_sendable(address, url):
    assert absolute_url(address, BASE) == url
    assert absolute_url(url, BASE) == url


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", DropReason.BAD_URL),
        (" \t", DropReason.BAD_URL),
        ("data:image/png;base64,AAAA", DropReason.REFUSED_SCHEME),
        ("JavaScript:void(0)", DropReason.REFUSED_SCHEME),
        ("java\nscript:void(0)", DropReason.REFUSED_SCHEME),
        ("file:///etc/passwd", DropReason.REFUSED_SCHEME),
        ("ftp://a.test/i", DropReason.REFUSED_SCHEME),
        ("blob:http://a.test/1", DropReason.REFUSED_SCHEME),
        ("http://", DropReason.BAD_URL),
        ("http://[::1", DropReason.BAD_URL),
        ("http://a b/i", DropReason.BAD_URL),
        ("http://a.test:port/i", DropReason.BAD_URL),
        ("http://a.test:99999/i", DropReason.BAD_URL),
        ("http://me:secret@a.test/i", DropReason.BAD_URL),
        ("http://\u2603\u2603\u200d.test/i", DropReason.BAD_URL),
    ],
)
def test_what_cannot_be_asked_for_is_refused(address, reason):
    with pytest.raises(UnusableAddress) as caught:
        absolute_url(address, BASE)
    assert caught.value.reason is reason


def test_a_page_without_an_address_resolves_nothing():
    with pytest.raises(UnusableAddress):
        absolute_url("i.png", "")


def test_the_host_is_in_lower_case():
    assert host_of(absolute_url("http://WWW.A.test:81/x")) == "www.a.test"


PIECES = [
    *(
    "a b.png ../ / // . .. ? x=1 ; : # %20 é http: https:// HTTP:// A.test a.test b.test:80 & @ ~ -"
    " _ = [ + ' ( ?y=/../z"
    ).split(),
    " ", "\n", "\\",
]  # fmt: skip
BASES = [
    *(
    "http://a.test/ http://a.test/d/e/f.html?x=/y/ http://a.test/d/../e/x http://a.test//d/x"
    " https://a.test/d;x/e;f http://a.test:81/x/y http://a.test/.x/y http://a.test/x?y#z"
).split(),
    "", "http://a.test/é",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=7), st.sampled_from(BASES))
def test_an_address_that_is_not_parsed_is_what_the_parser_makes_of_it(pieces, base):
    address = "".join(pieces)
    found = _of(address, base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urls, "_plain_url", lambda address, base: None)
        assert found == _of(address, base)


def _of(address, base):
    try:
        return absolute_url(address, base)
    except UnusableAddress as error:
        return error.reason, error.detail
