"""Records a second, a core: link metadata and HTML pages beside warcio, json and Beautiful Soup.

    python -m venv PEER && PEER/bin/pip install warcio beautifulsoup4 lxml
    python tests/benchmarks/bench_sources.py --peer PEER/bin/python [--pages 3000] [--warc FILE ...]

Link metadata (WAT): ours against warcio, json and the same extraction, in this process. Pages: ours
against warcio, Beautiful Soup on lxml and the plain extraction of the tests, which needs lxml and
so runs in a virtual environment of its own; without `--peer` it parses with Python's html.parser.
Both are single-threaded and take turns; what is compared is processor time, and the pairs found.
Pages are drawn from a seed (`tests/tasks/web_pages.py`), or read from WARC files of a crawl
(`--warc`).

Last, the peak memory of the whole stage `collect_pairs` for one file and for eight, and for a file
of four times the size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from warcio.archiveiterator import ArchiveIterator  # noqa: E402

from tests.tasks.sources import plain_pages  # noqa: E402

ROUNDS = 3


def _plain_pages_of(path: Path, parser: str) -> dict[str, Any]:
    """What the peer makes of a WARC file: pages, pairs, seconds."""
    start, found, pages = time.process_time(), set(), 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "response" or not _is_page(record):
                continue
            pages += 1
            url = record.rec_headers.get_header("WARC-Target-URI")
            pairs = plain_pages.pairs_of_page(url, record.content_stream().read(), parser)
            found |= {(url, *pair[:2]) for pair in pairs}
    return {"seconds": time.process_time() - start, "count": pages, "pairs": sorted(found)}


def _is_page(record: Any) -> bool:
    headers = record.http_headers
    kind = headers.get_header("Content-Type") or ""
    return headers.get_statuscode() == "200" and kind.startswith(("text/html", "application/xhtml"))


def _our_pages(path: Path) -> dict[str, Any]:
    from tasks.sources.pages import pairs_of_page
    from tasks.sources.warc import Page, read_pages

    start, found, pages = time.process_time(), set(), 0
    for page in read_pages(path):
        if isinstance(page, Page):
            pages += 1
            rows = (one.row for one in pairs_of_page(page, path.name) if not one.dropped)
            found |= {(row["page_url"], row["image_url"], row["caption"]) for row in rows}
    return {"seconds": time.process_time() - start, "count": pages, "pairs": sorted(found)}


def _plain_wat(path: Path) -> dict[str, Any]:
    from tasks.sources.wat import _found

    def read() -> Iterator[Any]:
        with path.open("rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "metadata":
                    content = record.content_stream().read()
                    licensed = b"icense" in content or b"creativecommons" in content
                    yield list(_found(json.loads(content)["Envelope"], path.name, 0, licensed))

    return _timed_wat(read())


def _our_wat(path: Path) -> dict[str, Any]:
    from tasks.sources.wat import pairs_of_wat

    return _timed_wat(pairs_of_wat(path, path.name))


def _timed_wat(records: Iterator[Any]) -> dict[str, Any]:
    start, found = time.process_time(), set()
    for record in records:
        rows = (one.row for one in record if not one.dropped)
        found |= {(row["page_url"], row["image_url"], row["caption"]) for row in rows}
    return {"seconds": time.process_time() - start, "pairs": sorted(found)}


def _make_files(folder: Path, count: int) -> tuple[Path, Path, int]:
    """A WARC and a WAT file of drawn pages, and how many records the latter has."""
    from tests.tasks.sources.warc_files import WarcMaker, add_wat
    from tests.tasks.sources.web_pages import page

    warc, wat = WarcMaker(), WarcMaker()
    for seed in range(count):
        url, html = page(seed)
        if seed % 3 == 0:  # about as many pages of the web have no image
            html = html.replace("<img", "<span").replace("og:image", "og:video")
        html = html.replace("</body>", f"{_MENU}</body>")
        warc.add(url, html)
        # Common Crawl writes one record each for request, response and its own metadata.
        for payload in (_other("request", url), plain_pages.wat_of_page(url, html, _HEADERS),
                        _other("metadata", url)):  # fmt: skip
            add_wat(wat, url, payload)
    for name, maker in (("p.warc.gz", warc), ("p.wat.gz", wat)):
        (folder / name).write_bytes(maker.bytes())
    return folder / "p.warc.gz", folder / "p.wat.gz", 3 * count


# Most links of a page lead to other pages of its site.
_MENU = "".join(f'<li><a href="/c/{n}" title="part {n}">Part {n} of it</a></li>' for n in range(80))
_HEADERS = [(name, "a value of a header") for name in ("Date", "Server", "Content-Type", "Vary")]


def _other(kind: str, url: str) -> dict[str, Any]:
    header = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": "2026-07-01T00:00:00Z"}
    message = {"Headers": dict(_HEADERS), "Request-Message": {"Method": "GET", "Path": "/"}}
    payload = {"HTTP-Request-Metadata": message, "Actual-Content-Length": "300"}
    return {"Envelope": {"WARC-Header-Metadata": header, "Payload-Metadata": payload}}


def _peer(python: str, path: Path) -> dict[str, Any]:
    command = [python, __file__, "--as-peer", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "pairs": [tuple(pair) for pair in found["pairs"]]}


def _show(what: str, count: int, size: int, ours: list[Any], theirs: list[Any]) -> None:
    a, b = (median(one["seconds"] for one in rounds) for rounds in (ours, theirs))
    mine, other = set(ours[0]["pairs"]), set(theirs[0]["pairs"])
    print(f"{what}: {count} ({size / 1e6:.1f} MB packed), ours {count / a:,.0f}/s, reference"
          f" {count / b:,.0f}/s, ratio {b / a:.1f}; pairs {len(mine)},"
          f" only ours {len(mine - other)}, only theirs {len(other - mine)}")  # fmt: skip
    for one in [*sorted(mine - other)[:3], *sorted(other - mine)[:3]]:
        print("   ", one)


def _memory(files: list[Path]) -> float:
    """Peak memory in MB of the stage on these files, in a process of its own."""
    command = [sys.executable, __file__, "--collect", *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _collect(files: list[str]) -> None:
    import resource

    from infra.sources import resolve_sources
    from infra.work import Work
    from tasks.collect_pairs import CollectParams, collect_pairs

    with tempfile.TemporaryDirectory() as folder:
        params = CollectParams.model_validate({"files": files})
        environment = Work.local(Path(folder)).environment
        work = Work.local(Path(folder), sources=resolve_sources(params.sources(), environment))
        collect_pairs(params, work)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _compare_memory(folder: Path, count: int) -> None:
    from tests.tasks.sources.warc_files import WarcMaker
    from tests.tasks.sources.web_pages import page

    files = []
    for number in range(9):
        maker, pages = WarcMaker(), count // 4 if number < 8 else count
        for seed in range(pages):
            url, html = page(seed)
            maker.add(f"{url}{number}/", html)
        files.append(folder / f"m{number}.warc.gz")
        files[-1].write_bytes(maker.bytes())
    one, eight, large = (_memory(some) for some in (files[:1], files[:8], files[8:]))
    print(f"peak memory of collect_pairs: one file of {count // 4} pages {one:.0f} MB,"
          f" eight {eight:.0f} MB, one of {count} pages {large:.0f} MB")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python that has warcio, beautifulsoup4 and lxml")
    parser.add_argument("--pages", type=int, default=3000)
    parser.add_argument("--warc", nargs="*", type=Path, default=[], help="WARC files of a crawl")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--collect", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_peer:
        html_parser = "lxml" if _has_lxml() else "html.parser"
        print(json.dumps(_plain_pages_of(given.as_peer, html_parser)))
        return
    if given.collect:
        _collect(given.collect)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        warc, wat, records = _make_files(folder, given.pages)
        rounds = [(_our_wat(wat), _plain_wat(wat)) for _ in range(ROUNDS)]
        ours, theirs = ([one[at] for one in rounds] for at in (0, 1))
        _show("WAT records", records, wat.stat().st_size, ours, theirs)
        for path in (warc, *given.warc):
            rounds = [(_our_pages(path), _peer(given.peer or sys.executable, path))
                      for _ in range(ROUNDS if path == warc else 1)]  # fmt: skip
            ours, theirs = ([one[at] for one in rounds] for at in (0, 1))
            _show(f"pages of {path.name}", ours[0]["count"], path.stat().st_size, ours, theirs)
        _compare_memory(folder, given.pages)


def _has_lxml() -> bool:
    from importlib.util import find_spec

    return find_spec("lxml") is not None


if __name__ == "__main__":
    main()
