"""Sites on disk: the same bytes from the same seed, and pages that say what the truth says."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup
from PIL import Image
from warcio.archiveiterator import ArchiveIterator

from infra.demo_web.__main__ import main
from infra.demo_web.first_words import FIRST
from infra.demo_web.kinds import RULES, Expected, Kind, Policy, amounts
from infra.demo_web.make import make_site
from infra.demo_web.site import read_site
from infra.demo_web.truth import read_truth
from schemas.scene import Scene, is_held_out, parse_caption

ROOT = Path(__file__).parents[3]
HOSTS = FIRST.hosts.names()


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def pages_of(folder):
    """(URL, HTTP headers, body) of each page, read by another library than wrote them."""
    for path in sorted(folder.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, check_digests="raise"):
                if record.rec_type == "response":
                    headers = dict(record.http_headers.headers)
                    url = record.rec_headers.get_header("WARC-Target-URI")
                    yield url, headers, record.content_stream().read()


def pairs_of(url, headers, body):
    """{image URL: (caption, where it stands)} as another parser sees the page."""
    said = headers["Content-Type"].partition("charset=")[2] or None
    soup = BeautifulSoup(body, "html.parser", from_encoding=said)
    base = urljoin(url, soup.base["href"]) if soup.base else url
    pairs = {}
    for image in soup.find_all("img"):
        figure = image.find_parent("figure")
        if (image.get("alt") or "").strip():
            caption, place = image["alt"], "alt"
        elif figure is not None:
            caption, place = figure.figcaption.get_text(), "figcaption"
        else:
            caption, place = image.get("title", ""), "title" if image.get("title") else ""
        pairs[urljoin(base, image["src"])] = (" ".join(caption.split()), place)
    return pairs


def test_the_same_seed_makes_the_same_bytes_in_another_process(site, tmp_path):
    other = tmp_path / "again"
    command = [sys.executable, "-m", "infra.demo_web", "make", str(other)]
    subprocess.run([*command, "--seed", "7", "--pages", "30"], cwd=ROOT, check=True)
    assert digests(other) == digests(site)


def test_another_seed_makes_another_site(site, tmp_path):
    make_site(tmp_path / "other", "shapes", seed=8, pages=3)
    ours, theirs = read_truth(site), read_truth(tmp_path / "other")
    assert ours[0] != theirs[0]
    assert len(theirs) < len(ours)


def test_pages_hold_exactly_the_images_of_the_truth(site):
    truth = defaultdict(dict)
    for row in read_truth(site):
        truth[row.page_url][row.image_url] = (row.caption, row.caption_source)
    found = {url: pairs_of(url, headers, body) for url, headers, body in pages_of(site)}
    assert found == truth


def test_images_are_known_by_their_urls(site):
    rows = read_truth(site)
    assert len({row.image_url for row in rows}) == len(rows)


def test_there_is_as_much_of_each_kind_as_was_asked_for(site):
    rows = read_truth(site)
    counts = Counter(row.kind for row in rows)
    for kind, amount in amounts(60).items():
        if RULES[kind].expected is Expected.ONE_KEPT:
            groups = Counter(row.group for row in rows if row.kind is kind)
            assert len(groups) == amount
            assert min(groups.values()) >= 2
        else:
            assert counts[kind] == amount


def test_good_captions_say_what_their_pictures_show_and_nothing_held_out(site):
    for row in read_truth(site):
        if row.expected in (Expected.KEPT, Expected.ONE_KEPT):
            assert parse_caption(row.caption) == row.scene
            assert not is_held_out(row.scene)


def test_every_page_and_every_image_that_may_be_asked_for_has_an_answer(site):
    routes = read_site(site).routes
    nowhere = (Kind.REFUSED_ADDRESS, Kind.REFUSED_SCHEME)
    urls = [row.image_url for row in read_truth(site) if row.kind not in nowhere]
    urls += [row.page_url for row in read_truth(site)]
    for url in urls:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        assert (parts.netloc, path) in routes


def test_what_is_forbidden_is_marked_on_its_route(site):
    routes = read_site(site).routes
    forbidden = {key for key, route in routes.items() if route.policy is Policy.NEVER_REQUESTED}
    hosts = {host for host, _ in forbidden}
    assert {"closed.test", "broken.test", "gallery.test", "img.shapes.test"} <= hosts
    for row in read_truth(site):
        parts = urlsplit(row.image_url)
        under = parts.netloc == "closed.test" or parts.path.startswith(("/members/", "/private/"))
        if row.kind is Kind.ROBOTS_TXT and row.detail != "redirect":
            assert under
        else:
            assert not under


def test_pages_that_forbid_ai_say_so_and_no_others(site):
    forbidden = {row.page_url for row in read_truth(site) if row.kind is Kind.PAGE_OPT_OUT}
    assert forbidden
    for url, headers, body in pages_of(site):
        said = b"noai" in body or b"tdm-reservation" in body
        said = said or bool({"X-Robots-Tag", "tdm-reservation"} & set(headers))
        assert said == (url in forbidden)


def test_dirt_is_what_it_says(site):
    pages = read_site(site)
    groups = defaultdict(list)
    for row in read_truth(site):
        parts = urlsplit(row.image_url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        body = pages.body(pages.routes[parts.netloc, path]) if parts.netloc in HOSTS else b""
        if row.kind is Kind.ANIMATED:
            assert Image.open(io.BytesIO(body)).n_frames == 2
        if row.group is not None:
            groups[row.kind, row.group].append(body)
    for (kind, _), bodies in groups.items():
        assert len(set(bodies)) == (1 if kind is Kind.EXACT_DUPLICATE else len(bodies))


def test_encodings_differ_from_page_to_page(site):
    bodies = [body for _, _, body in pages_of(site)]
    types = {headers["Content-Type"] for _, headers, _ in pages_of(site)}
    assert {"text/html", "text/html; charset=utf-8"} <= types
    assert any(b"<base href=" in body for body in bodies)


WHY = {
    "held_out_one": {"size"},
    "held_out_combination": {"combination"},
    "held_out_two": {"combination", "pairing"},
    "seen_one": {""},
    "seen_two": {""},
}


def test_prompts_are_what_they_say(site):
    prompts = json.loads((site / "prompts.json").read_text())
    captions = {row.caption.lower().rstrip(".") for row in read_truth(site)}
    assert {name: len(some) for name, some in prompts.items()} == {
        "held_out_one": 24,
        "held_out_combination": 18,
        "held_out_two": 30,
        "seen_one": 20,
        "seen_two": 12,
    }
    for name, some in prompts.items():
        for one in some:
            scene = Scene.of_record(one["scene"])
            assert parse_caption(one["prompt"]) == scene
            assert is_held_out(scene) == name.startswith("held_out")
            assert one["why"] in WHY[name]
            if one["why"]:
                assert one["prompt"] not in captions


def test_the_second_site_shares_no_words_with_the_first(site, tmp_path):
    make_site(tmp_path / "second", "second", seed=1, pages=30)
    first, second = read_truth(site), read_truth(tmp_path / "second")
    for kind in (Kind.GOOD, Kind.BOILERPLATE, Kind.FOREIGN_LANGUAGE, Kind.BANNER):
        ours = {row.caption.lower() for row in first if row.kind is kind}
        assert not ours & {row.caption.lower() for row in second if row.kind is kind}
    languages = [
        {row.detail for row in rows if row.kind is Kind.FOREIGN_LANGUAGE}
        for rows in (first, second)
    ]
    assert not languages[0] & languages[1]
    assert not set(read_site(site).about["hosts"]) & set(
        read_site(tmp_path / "second").about["hosts"]
    )


def test_a_site_is_replaced_whole_and_nothing_is_left_over(tmp_path):
    folder = tmp_path / "web"
    make_site(folder, seed=1, pages=2)
    (folder / "stray").write_text("x")
    make_site(folder, seed=2, pages=2)
    assert not (folder / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "shape"], "variant 'shape' is not one of shapes, second, emoji"),
        (["--pages", "0"], "pages 0"),
        (["--variant", "emoji", "--pages", "5"], "as many pages as its font"),
        (["--variant", "emoji", "--font", "/nowhere.ttf"], "fonts-noto-color-emoji"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path, capsys):
    assert main(["make", str(tmp_path / "web"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "web").exists()
