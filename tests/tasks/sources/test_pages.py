"""Pairs of a page: the right caption for the right address, in any encoding, whatever the HTML."""

import gc
import time

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import DropReason, pair_key
from tasks.sources.encodings import decode
from tasks.sources.found import MAX_CAPTION
from tasks.sources.optout import forbids, signals_of
from tasks.sources.pages import pairs_of_page
from tasks.sources.urls import UnusableAddress
from tasks.sources.warc import Page
from tasks.text import one_line
from tests.tasks.sources import plain_pages
from tests.tasks.sources.web_pages import page

BY = "https://creativecommons.org/licenses/by/4.0/"


def found(html, url="http://a.test/dir/", charset=None, **signals):
    content = html if isinstance(html, bytes) else html.encode()
    return list(pairs_of_page(Page(url, content, charset, signals, 7), "x.warc.gz"))


def captions(html, **options):
    return [one.row["caption"] for one in found(html, **options) if not one.dropped]


def reasons(html, **options):
    return [one.row["reason"] for one in found(html, **options) if one.dropped]


def test_a_pair_has_all_columns():
    (one,) = found('<img src="../i.png" alt=" a  red\ncircle ">', "http://A.test/dir/")

    assert one.row == {
        "key": pair_key("http://a.test/i.png", "http://a.test/dir/", "a red circle"),
        "image_url": "http://a.test/i.png", "page_url": "http://a.test/dir/", "domain": "a.test",
        "caption": "a red circle", "caption_source": "alt", "source": "x.warc.gz", "offset": 7,
        "language": None, "opt_out": None, "license": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("html", "caption", "source"),
    [
        ('<figure><img src=i alt=A title=T><figcaption>F</figcaption></figure>', "A", "alt"),
        ('<figure><img src=i title=T><figcaption>F</figcaption></figure>', "F", "figcaption"),
        ('<figure><img src=i title=T><figcaption> </figcaption></figure>', "T", "title"),
        (
            '<figure><p><a><img src=i alt=""></a></p><figcaption>F</figcaption></figure>',
            "F", "figcaption",
        ),
        ('<figcaption>other</figcaption><img src=i title=T>', "T", "title"),
        (
            "<figure><figure><img src=i><figcaption>in</figcaption></figure>"
            "<figcaption>out</figcaption></figure>", "in", "figcaption",
        ),
        (
            "<figure><img src=i><figcaption>A <b>big</b> cat<br>on<p>a mat</p><script>x()</script>"
            "</figcaption></figure>", "A big cat on a mat", "figcaption",
        ),
        ('<img src=i alt="caf&eacute; &amp; &#x1F600;&nbsp;b">', "café & 😀 b", "alt"),
        ('<IMG SRC=i ALT=A>', "A", "alt"),
    ],
)  # fmt: skip
def test_the_best_caption_wins(html, caption, source):
    (one,) = found(html)

    assert (one.row["caption"], one.row["caption_source"]) == (caption, source)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ('<base href="http://b.test/x/">', "http://b.test/x/i.png"),
        ('<base href="/x/">', "http://a.test/x/i.png"),
        ('<base target=_blank><base href="/x/"><base href="/y/">', "http://a.test/x/i.png"),
        ('<base href="javascript:1">', "http://a.test/dir/i.png"),
    ],
)
def test_addresses_are_resolved_against_the_base(base, url):
    (one,) = found(f'{base}<img src="i.png" alt="x">')

    assert one.row["image_url"] == url


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("<img src=a srcset='b 320w, c 640w, d 480w'>", "c"),
        ("<img src=a srcset='b 1x, c 2.5x, d 2x'>", "c"),
        ("<img src=a srcset='b'>", "a"),
        ("<img srcset='b'>", "b"),
        ("<img src=a srcset='b,c 2x'>", "b,c"),  # a comma within belongs to the address
        ("<img src=a srcset=' , b 2x , , c 3x,'>", "c"),
        ("<img src=a srcset='b 10w,c (1,2) 20w'>", "c"),
        ("<img src=a srcset='b 10q, c 99999999999w, d -5w, e 5w'>", "e"),
        ("<img src='data:image/gif;base64,R0' data-src=b>", "b"),
        ("<img src=a data-original=b>", "b"),
        ("<img src=a data-lazy-src=b>", "b"),
        ("<img src=a data-srcset='b 10w, c 20w' data-src=d>", "c"),
        ("<img src=a srcset='data:image/gif;base64,R0 1w' data-srcset='c 20w'>", "c"),
        ("<img src=a data-src=''>", "a"),
        ("<img src=a data-src='{{ image.url }}'>", "a"),
        ("<img src=a data-src='http://[' srcset='ftp://b/ 2x'>", "a"),
        ("<picture><source srcset='b 9w'><source srcset='c 99w'><img src=a></picture>", "c"),
        ("<picture><source srcset=b type=image/webp><img src=a></picture>", "a"),
        ("<picture><source srcset='b 9w'><img src=a srcset='c 9w'></picture>", "c"),
        ("<picture><source srcset='b 9w' type=image/svg+xml><img src=a></picture>", "a"),
        ("<picture><source srcset='b 9w'><div><img src=a></div></picture>", "a"),
        ("<noscript><img src=a></noscript>", "a"),
    ],
)
def test_the_largest_picture_is_taken(image, url):
    (one,) = found(image.replace("<img", "<img alt=x"), "http://a.test/")

    assert one.row["image_url"] == f"http://a.test/{url}"


def test_an_open_graph_image_is_a_pair_with_its_description():
    html = (
        '<meta property="og:title" content="T"><meta property="og:image" content="a.png">'
        '<meta property="og:image:secure_url" content="https://a.test/s.png">'
        '<meta property="og:image:alt" content="one &amp; only"><meta name="OG:Image" content="/b">'
        '<meta property="og:description" content=" D "><meta property="og:image" content="data:x">'
    )
    rows = [one.row for one in found(html)]

    assert [(row["image_url"], row["caption"], row.get("caption_source")) for row in rows] == [
        ("http://a.test/dir/a.png", "one & only", "og:image:alt"),
        ("http://a.test/b", "D", "og:description"), ("data:x", "D", None),
    ]  # fmt: skip
    assert reasons("<meta property=og:image content=a>") == [DropReason.NO_CAPTION]
    assert captions("<meta property=og:image content=a><meta property=og:title content=T>") == ["T"]


@pytest.mark.parametrize(
    ("html", "licenses"),
    [
        ("<a rel='nofollow License' href=/terms>t</a>", "http://a.test/terms"),
        ("<link rel=license href=http://b.test/l>", "http://b.test/l"),
        ("<a href=https://creativecommons.org/licenses/by/4.0/>", BY),
        ("<a href=https://creativecommons.org/licenses/by/4.0/><a rel=license href=#x>",
         f"{BY}; http://a.test/dir/"),
        ("<a href=https://creativecommons.org/about/>", None),
        ("<a href=http://b.test/?https://creativecommons.org/licenses/by/4.0/>", None),
        ("<a rel=license href='javascript:x'>", None),
        ("<figure><a rel=license href=/other>o</a></figure>", None),
    ],
)  # fmt: skip
def test_the_license_of_a_page_is_noted(html, licenses):
    (one,) = found(f"{html}<img src=i alt=x>")

    assert one.row["license"] == licenses


def test_a_figure_may_have_a_license_of_its_own():
    html = (
        f"<a rel=license href=/terms>t</a><figure><img src=i alt=x><a href={BY}>CC</a></figure>"
        "<img src=j alt=y>"
    )

    assert [one.row["license"] for one in found(html)] == [BY, "http://a.test/terms"]


def test_the_pairs_of_pages_are_those_of_a_plain_parser():
    total = 0
    for seed in range(150):
        url, html = page(seed)
        rows = [one.row for one in found(html, url) if not one.dropped]
        ours = [(r["image_url"], r["caption"], r["caption_source"], r["license"]) for r in rows]
        assert ours == plain_pages.pairs_of_page(url, html)
        total += len(ours)
    assert total > 1000


def test_images_without_pairs_are_told():
    html = (
        "<img src=a.png><img src=b.png alt=''><img alt=nowhere><img src='' alt=x>"
        "<img src='data:image/gif;base64,R0' alt=x><img src='javascript:x' alt=y>"
        "<img src='http://[' alt=z>"
    )

    assert reasons(html) == [
        "no_caption", "no_caption", "bad_url", "bad_url", "refused_scheme", "refused_scheme",
        "bad_url",
    ]  # fmt: skip


def test_a_huge_address_is_shortened_in_the_table_and_not_in_the_key():
    pages = [found(f"<img src='data:{'A' * 50_000}{last}' alt=x>")[0].row for last in "xy"]

    assert len(pages[0]["image_url"]) < 3000
    assert pages[0]["key"] != pages[1]["key"]


def test_a_huge_caption_is_cut():
    assert len(captions(f"<img src=i alt='{'word ' * 100_000}'>")[0]) <= MAX_CAPTION


@pytest.mark.parametrize(
    "head",
    [
        '<meta name="robots" content="noai">',
        '<meta name="ROBOTS" content="index, NoImageAI">',
        '<meta name="tdm-reservation" content="1">',
    ],
)
def test_a_page_that_forbids_ai_gives_no_pairs(head):
    assert reasons(f"{head}<img src=i alt='a red circle'>") == [DropReason.OPTED_OUT]


def test_so_does_one_that_forbids_it_in_a_header():
    signals = {"x-robots-tag": "otherbot: noai", "tdm-reservation": ""}

    assert reasons("<img src=i alt=x>", **{}) == []
    content = Page("http://a.test/", b"<img src=i alt=x>", None, signals, 0)
    (one,) = pairs_of_page(content, "x")
    assert one.row["reason"] == DropReason.OPTED_OUT
    assert one.row["detail"] == "x-robots-tag: noai"


def test_other_wishes_are_noted_only():
    (one,) = found('<meta name=robots content="noindex,follow"><img src=i alt=x>')

    assert (one.dropped, one.row["opt_out"]) == (False, "robots: noindex")


@pytest.mark.parametrize(
    ("said", "forbidden"),
    [
        (("x-robots-tag", "noai, noindex"), True),
        (("robots", "all"), False),
        (("tdm-reservation", "0"), False),
        (("content-usage", "train-ai=n"), True),
        (("content-usage", "train-ai=y"), False),
        (("content-signal", "search=yes, ai-train=no"), True),
        (("description", "noai"), False),
    ],
)
def test_signals(said, forbidden):
    assert forbids(signals_of([said])) is forbidden


TEXT = "größer als Öl – naïve"


@pytest.mark.parametrize(
    ("html", "charset"),
    [
        (TEXT.encode(), None),
        (TEXT.encode(), "utf-8"),
        (b"\xef\xbb\xbf" + TEXT.encode(), "iso-8859-1"),  # the mark wins
        (TEXT.encode("utf-16"), None),
        (TEXT.encode("cp1252"), "ISO-8859-1"),
        (b'<meta charset="windows-1252">' + TEXT.encode("cp1252"), None),
        (b'<?xml version="1.0" encoding="windows-1252"?>' + TEXT.encode("cp1252"), None),
        (b"<meta http-equiv=Content-Type content='text/html; charset=cp1252'>"
         + TEXT.encode("cp1252"), None),
        (b"<meta charset=utf-16>" + TEXT.encode(), None),
        (TEXT.encode("cp1252"), "utf-8"),  # declared falsely
        (b"<meta charset=nonsense>" + TEXT.encode(), "also-nonsense"),
    ],
)  # fmt: skip
def test_text_is_read_in_any_declared_encoding(html, charset):
    assert decode(html, charset).endswith(TEXT)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("большой красный круг на белом фоне", "cp1251"),
        ("白い背景に大きな赤い円が描かれています", "shift_jis"),
        ("白い背景に大きな赤い円が描かれています", "euc_jp"),
        ("흰색 배경에 큰 빨간색 원이 그려져 있습니다", "euc_kr"),
    ],
)
def test_an_encoding_that_nobody_declares_is_found_out(text, encoding):
    html = f"<html><body><p>{text}</p><img src=i alt='{text}'></body></html>" * 3

    assert captions(html.encode(encoding))[0] == text


@pytest.mark.parametrize("html", [b"", b"\0" * 100, b"\xff" * 100, b"<img" * 1000, b"<" * 10_000])
def test_rubbish_gives_nothing_and_ends(html):
    assert [one for one in found(html) if not one.dropped] == []


def test_deep_nesting_ends():
    assert captions("<div>" * 50_000 + "<img src=i alt=x>") == ["x"]


HOSTILE = {
    "formatting left open": "".join(f"<p><b id={n}></p>" for n in range(20_000)),
    "images without end": "<img>" * 20_000,
    "figures in figures": "<figure><figcaption>x<img src=a>" * 5_000,
    "deep figures": ("<figure>" + "<div>" * 70 + "<figcaption>x<img src=a>") * 300,
    "one picture": "<picture>" + "<source srcset='a 2x'><img>" * 5_000,
    "one set": "<img srcset='" + ", ".join(f"{n} {n}w" for n in range(50_000)) + "'>",
    "an open bracket": "<img srcset='" + "a (" * 50_000 + "'>",
    "licenses": "".join(f"<a rel=license href={n}>" for n in range(5_000)),
    "shared images": "".join(f"<meta property=og:image content={n}>" for n in range(10_000)),
    "attributes": "<p " + " ".join(f"a{n}" for n in range(10_000)) + ">",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_page_made_to_be_slow_is_read_in_seconds(kind):
    """Each took minutes or gigabytes where its cost was left to grow as the square of its size."""
    start = time.process_time()
    count = sum(
        1 for _ in pairs_of_page(Page("http://a.test/", HOSTILE[kind].encode(), None, {}, 0), "x")
    )

    assert time.process_time() - start < 10
    assert count < 30_000


def test_a_page_without_an_address_is_refused():
    with pytest.raises(UnusableAddress):
        found("<img src=i alt=x>", url="")


def test_invisible_characters_do_not_make_captions_differ():
    assert one_line(" a\u00a0b\u200b\tc\r\n d\x00 ") == "a b c d"
    assert one_line("e\u0301") == "é"
    assert one_line("\U0001f468\u200d\U0001f469") == "\U0001f468\u200d\U0001f469"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "utf-16", "big5", "x"]))
def test_any_bytes_are_a_page(junk, charset):
    for one in found(
        b"<figure><img src='" + junk + b"' alt='" + junk + b"'>" + junk,
        "http://a.test/",
        charset,
    ):
        assert one.row["image_url"].isprintable()
        one.row["caption"].encode()


PIECES = st.sampled_from(
    ["<img src=a alt=one>", "<img src='b c' title=two>", "<figure>", "</figure>", "<img src=d>",
     "<figcaption>three", "</figcaption>", "<p>", "</div>", "<b>text</b>", "<img src=e alt='four'>"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=12))
def test_alternative_texts_are_those_that_beautiful_soup_finds(pieces):
    html = "<html><body>" + "".join(pieces) + "</body></html>"
    theirs = [i["alt"] for i in BeautifulSoup(html, "html.parser").find_all("img") if i.get("alt")]

    rows = [one.row for one in found(html) if not one.dropped]
    assert [row["caption"] for row in rows if row["caption_source"] == "alt"] == theirs


def test_nothing_of_a_page_is_left_to_the_garbage_collector() -> None:
    """It may run in any thread, and what the parser made must be dropped in its own."""
    html = (
        '<figure><img src="blob:x" alt="a"><img src="javascript:y" alt="b"></figure><img alt="c">'
    )
    gc.collect()
    gc.disable()
    try:
        found = list(pairs_of_page(Page("https://a.test/", html.encode(), None, {}, 0), "s"))
        assert len(found) == 3 and gc.collect() == 0
    finally:
        gc.enable()
