"""Collecting: the pairs that a plain parser finds, each once, from files in any state."""

import gzip
import json
import random
from collections import Counter
from contextlib import contextmanager
from urllib.parse import urljoin

import fsspec
import pytest
from bs4 import BeautifulSoup
from warcio.archiveiterator import ArchiveIterator

from infra.demo_web.make import make_site
from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.tables import read_table
from infra.work import Work
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA
from tasks.collect_pairs import CollectParams, collect_pairs
from tasks.sources.warc import MAX_PAGE
from tests.infra.test_sources import serving
from tests.s3 import s3_server
from tests.tasks.sources import plain_pages
from tests.tasks.sources.warc_files import WarcMaker, add_wat, simple
from tests.tasks.sources.web_pages import page

# warcio leaves its temporary files to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def collect(home, declared):
    params = CollectParams.model_validate(
        {"files": [one if isinstance(one, dict) else str(one) for one in declared]}
    )
    sources = resolve_sources(params.sources(), Work.local(home).environment)
    work = Work.local(home, sources=sources)
    return collect_pairs(params, work), work


def rows(artifact, schema, work):
    return [row for unit in artifact.units for row in read_table(work.fetch(unit), schema)]


def plain_parser(paths):
    """Pairs as warcio and Beautiful Soup find them: (image URL, page URL, caption)."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "response":
                    url = record.rec_headers.get_header("WARC-Target-URI")
                    found += _plain_pairs(url, record.content_stream().read())
    return found


def _plain_pairs(url, html):
    soup = BeautifulSoup(html, "html.parser")
    base = soup.find("base", href=True)
    start = urljoin(url, base["href"]) if base else url
    for image in soup.find_all("img", src=True):
        address = urljoin(start, image["src"].strip())
        if address.startswith(("http:", "https:")):
            yield address.split("#")[0], url, _plain_caption(image)


def _plain_caption(image):
    figure = image.find_parent("figure")
    below = figure.find("figcaption") if figure else None
    texts = [image.get("alt"), below.get_text(" ") if below else "", image.get("title")]
    return next((" ".join(text.split()) for text in texts if text and text.strip()), "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "site"
    make_site(folder, "shapes", seed=11, pages=120)
    return folder


def test_the_pairs_are_those_of_a_plain_parser(tmp_path, site):
    paths = sorted(site.glob("*.warc.gz"))
    collected, work = collect(tmp_path, paths)

    kept = rows(collected.pairs, PAIR_SCHEMA, work)
    drops = rows(collected.drops, DROP_SCHEMA, work)
    ours = {(row["image_url"], row["page_url"], row["caption"]) for row in [*kept, *drops]}
    theirs = set(plain_parser(paths))
    assert theirs <= ours
    assert {one[0].split(":")[0] for one in ours - theirs} <= {
        "data", "javascript", "file", "ftp", "blob",
    }  # fmt: skip
    assert len(kept) > 250


def test_what_is_dropped_has_its_reason(tmp_path, site):
    collected, work = collect(tmp_path, [site / "*.warc.gz"])

    drops = rows(collected.drops, DROP_SCHEMA, work)
    assert {row["reason"] for row in drops} == {"no_caption", "refused_scheme", "opted_out"}
    assert all(row["stage"] == "collect_pairs" and row["detail"] for row in drops)
    counted = sum(n for name, n in work.counts.items() if name.startswith("dropped/"))
    assert (counted, work.counts["kept"]) == (len(drops), collected.pairs.records)


def test_the_same_files_give_the_same_units(tmp_path, site):
    first, _ = collect(tmp_path / "a", [site / "*.warc.gz"])
    second, _ = collect(tmp_path / "b", [site / "*.warc.gz"])

    assert first == second


def test_a_pair_is_kept_once_and_where_it_comes_first(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(simple(3).bytes())
    (tmp_path / "b.warc.gz").write_bytes(simple(5).bytes())
    page = "<img src=i alt=twice><img src=i alt=twice><img src=i alt=other>"
    (tmp_path / "c.warc.gz").write_bytes(WarcMaker().add("http://a.test/", page).bytes())
    collected, work = collect(tmp_path / "home", [tmp_path / "*.warc.gz"])

    kept = rows(collected.pairs, PAIR_SCHEMA, work)
    assert [row["source"] for row in kept] == ["a.warc.gz"] * 3 + ["b.warc.gz"] * 2 + [
        "c.warc.gz",
        "c.warc.gz",
    ]
    assert work.counts["repeated_pairs"] == 3 + 1


def test_next_months_files_leave_last_months_units_alone(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(simple(3).bytes())
    first, _ = collect(tmp_path / "home", [tmp_path / "*.warc.gz"])
    (tmp_path / "b.warc.gz").write_bytes(simple(5).bytes())
    second, work = collect(tmp_path / "home", [tmp_path / "*.warc.gz"])

    assert second.pairs.units[: len(first.pairs.units)] == first.pairs.units
    assert work.reused == 1


def test_all_kinds_of_sources_come_in_one_mix(tmp_path):
    url, html = page(3)
    folder = tmp_path / "crawl" / "seg"
    folder.mkdir(parents=True)
    (folder / "a.warc.gz").write_bytes(simple(3).bytes())
    wat = plain_pages.wat_of_page(url, html)
    told = len(plain_pages.pairs_of_wat(json.dumps(wat))[1])
    (folder / "a.wat.gz").write_bytes(add_wat(WarcMaker(), url, wat).bytes())
    (tmp_path / "wat.paths.gz").write_bytes(gzip.compress(b"seg/none.wat.gz\nseg/a.wat.gz\n"))
    listed = [{"u": f"http://c.test/{n}", "t": "a caption"} for n in range(4)]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*listed, *listed]))
    files = [
        folder / "*.warc.gz",
        {"listing": str(tmp_path / "wat.paths.gz"), "prefix": f"{tmp_path}/crawl/", "start": 1},
        {"table": str(tmp_path / "l.jsonl"), "url": "u", "caption": "t"},
    ]
    collected, work = collect(tmp_path / "home", files)

    kept = Counter(row["source"] for row in rows(collected.pairs, PAIR_SCHEMA, work))
    assert kept == {"a.warc.gz": 3, "a.wat.gz": told, "l.jsonl": 4}
    assert work.counts["repeated_pairs"] == 4
    assert (work.made, work.reused) == (3, 0)

    (tmp_path / "m.jsonl").write_text('{"u": "http://c.test/m", "t": "another"}')
    more = {"table": str(tmp_path / "m.jsonl"), "url": "u", "caption": "t"}
    again, work = collect(tmp_path / "home", [*files, more])
    assert (work.made, work.reused) == (1, 3)
    assert again.pairs.units[:3] == collected.pairs.units


@contextmanager
def _local(folder):
    yield str(folder), lambda name, content: (folder / name).write_bytes(content)


@contextmanager
def _web(folder):
    with serving() as site:
        yield site.url, site.files.__setitem__


@contextmanager
def _object_store(folder):
    with s3_server() as url:
        store = fsspec.filesystem("s3")
        bare = url.removeprefix("s3://")
        yield url, lambda name, content: store.pipe(f"{bare}/{name}", content)


@pytest.mark.parametrize("place", [_local, _web, _object_store])
def test_a_file_replaced_under_its_name_is_made_again_alone(place, tmp_path):
    with place(tmp_path) as (url, put):
        files = [f"{url}/{name}.warc.gz" for name in "ab"]
        for name in "ab":
            put(f"{name}.warc.gz", simple(2, packed=False, host=f"{name}.test").bytes())
        first, _ = collect(tmp_path / "home", files)
        put("a.warc.gz", simple(2, packed=False, host="c.test").bytes())  # of the same size
        second, work = collect(tmp_path / "home", files)

    assert (work.made, work.reused) == (1, 1)
    assert second.pairs.units[1] == first.pairs.units[1]
    assert {row["domain"] for row in rows(second.pairs, PAIR_SCHEMA, work)} == {"b.test", "c.test"}


def test_pages_with_more_html_than_is_read_are_counted(tmp_path):
    page = "<img src=i alt=x>" + "<p>" * MAX_PAGE + "<img src=j alt=y>"
    (tmp_path / "a.warc.gz").write_bytes(WarcMaker().add("http://a.test/", page).bytes())
    collected, work = collect(tmp_path / "home", [tmp_path / "a.warc.gz"])

    assert (collected.pairs.records, work.counts["cut_pages"]) == (1, 1)


def test_two_files_of_one_name_are_two_units(tmp_path):
    for folder, host in (("x", "a.test"), ("y", "b.test")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.warc.gz").write_bytes(simple(2, host=host).bytes())
    collected, _ = collect(tmp_path / "home", [tmp_path / "*" / "p.warc.gz"])

    assert len({unit.name for unit in collected.pairs.units}) == 2


def test_damaged_files_are_counted_by_name_and_the_rest_is_kept(tmp_path):
    whole = simple(4)
    (tmp_path / "cut.warc.gz").write_bytes(whole.bytes()[: whole.offsets[3] + 50])
    (tmp_path / "junk.warc.gz").write_bytes(bytes(range(256)) * 9)
    nameless = WarcMaker().add("about:blank", "<img src=i alt=x>")
    (tmp_path / "odd.warc.gz").write_bytes(nameless.bytes())
    collected, work = collect(tmp_path / "home", [tmp_path / "*.warc.gz"])

    assert collected.pairs.records == 3
    assert work.counts["truncated_files/cut.warc.gz"] == 1
    assert work.counts["bad_records/junk.warc.gz"] == 1
    assert work.counts["bad_records/odd.warc.gz"] == 1
    assert (work.counts["truncated_files"], work.counts["bad_records"]) == (1, 2)


def test_no_pair_at_all_stops_the_run_with_the_reasons(tmp_path):
    page = "<img src=i><img src=j>"
    (tmp_path / "a.warc.gz").write_bytes(WarcMaker().add("http://a.test/", page).bytes())

    with pytest.raises(PermanentError, match=r"no pair is left of 2 \(2 no_caption\)"):
        collect(tmp_path / "home", [tmp_path / "a.warc.gz"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PermanentError, match=r"nowhere\.warc\.gz"):
        collect(tmp_path / "home", [tmp_path / "nowhere.warc.gz"])


def test_pages_at_random_give_what_the_plain_parser_finds(tmp_path):
    rng, maker = random.Random(4), WarcMaker()
    for number in range(80):
        maker.add(f"http://a.test/d{number}/", _random_page(rng))
    path = tmp_path / "a.warc.gz"
    path.write_bytes(maker.bytes())
    collected, work = collect(tmp_path / "home", [path])

    kept = rows(collected.pairs, PAIR_SCHEMA, work)
    ours = {(row["image_url"], row["page_url"], row["caption"]) for row in kept}
    assert ours == {one for one in plain_parser([path]) if one[2]}


def _random_page(rng):
    parts = ['<base href="/other/">'] if rng.random() < 0.3 else []
    for _ in range(rng.randrange(1, 8)):
        source = rng.choice(("a.png", "../b.png", "/c.png?x=1&amp;y=2", "//b.test/d.png#e"))
        alt = rng.choice(("", ' alt=""', ' alt="the &lt;alt&gt; text"', " alt='caf\u00e9'"))
        title = rng.choice(("", ' title="a title"'))
        image = f'<img src="{source}"{alt}{title}>'
        below = rng.choice(("", "<figcaption>text <i>in</i> figure</figcaption>"))
        around = rng.choice(
            ("{}", "<p><a href=x>{}</a></p>", "<figure><div>{}</div>" + below + "</figure>")
        )
        parts.append(around.format(image))
    return "<html><body>" + "\n".join(parts) + "</body></html>"
