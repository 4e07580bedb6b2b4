"""Every pair ends in exactly one of images or drops, whatever sites do and whoever is killed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import multiprocessing
import multiprocessing.process
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.errors import PermanentError
from infra.process import ProcessFailed
from infra.shards import read_shard
from infra.tables import read_table, write_table
from infra.work import Work
from schemas.artifact import PairTable, Unit
from schemas.records import DROP_SCHEMA, OUTCOME_SCHEMA, PAIR_SCHEMA, pair_key
from tasks.download_images import Downloaded, DownloadParams, download_images
from tests.tasks.web import requests, serving

AGENT = "TapirTest/1.0 (+https://example.org/bot)"
# One process of img2dataset: starting another costs more than these few images.
QUICK: dict[str, Any] = {
    "host_rate": 0, "host_connections": 32, "timeout": 5.0, "threads": 16, "processes": 1,
}  # fmt: skip


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    picture = Image.new("RGB", size, (seed % 256, seed // 256, 99))
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def page(body: bytes, **answer: Any) -> dict[str, Any]:
    return {"body": base64.b64encode(body).decode(), **answer}


def make_site(good: int) -> dict[str, dict[str, Any]]:
    """`good` pictures, and one of each kind of trouble."""
    site = {f"a.test/{number}.png": page(encoded(number)) for number in range(good)}
    return site | {
        "a.test/jpeg": page(encoded(1000, "JPEG"), type="image/jpeg"),
        "b.test/webp": page(encoded(1001, "WEBP"), type="application/octet-stream"),
        "b.test/gif": page(encoded(1002, "GIF"), type="image/gif"),
        "b.test/gone": {"status": 410},
        "b.test/page": page(b"<html></html>", type="text/html"),
        "b.test/busy": page(
            encoded(1003), first=[{"status": 429, "headers": {"Retry-After": "1"}}]
        ),
        "b.test/flaky": page(encoded(1004), first=[{"status": 500}]),
        "b.test/broken": {"status": 500},
        "b.test/noai": page(encoded(1005), headers={"X-Robots-Tag": "noai"}),
        "b.test/escape": {"status": 302, "headers": {"Location": "http://169.254.169.254/"}},
        "c.test/robots.txt": page(b"User-agent: *\nDisallow: /", type="text/plain"),
        "c.test/forbidden": page(encoded(1006)),
    }


EXPECTED = {
    "b.test/gone": ("not_found", "HTTP 410"),
    "b.test/page": ("not_an_image", "its type is text/html"),
    "b.test/broken": ("http_5xx", "HTTP 500"),
    "b.test/noai": ("opted_out", "X-Robots-Tag: noai"),
    "b.test/escape": ("refused_address", "169.254.169.254 is not a global address"),
    "c.test/forbidden": ("robots_disallowed", "robots.txt of http://c.test forbids it"),
    "b.test/missing": ("not_found", "HTTP 404"),
}


def make_pairs(names: list[str]) -> list[dict[str, Any]]:
    pairs = []
    for number, name in enumerate(names):
        url, site, caption = f"http://{name}", f"http://pages.test/{number}", f"picture {number}"
        pairs.append(
            {
                "key": pair_key(url, site, caption),
                "image_url": url,
                "page_url": site,
                "domain": "pages.test",
                "caption": caption,
                "caption_source": "alt",
                "source": "test.warc.gz",
                "offset": number,
                "language": "en",
                "opt_out": None,
            }
        )
    return pairs


def as_table(work: Work, *parts: list[dict[str, Any]]) -> PairTable:
    units = []
    for number, pairs in enumerate(parts):
        path = work.scratch / f"pairs-{number}.parquet"
        rows = write_table(path, sorted(pairs, key=lambda pair: pair["key"]), PAIR_SCHEMA)
        units.append(work.store.put(path, path.name, rows))
    return PairTable(units=tuple(units))


def samples(work: Work, found: Downloaded) -> dict[str, Any]:
    shards = [list(read_shard(work.fetch(unit))) for unit in found.images.units]
    return {sample.record["image_url"][7:]: sample for shard in shards for sample in shard}


def rows(work: Work, units: tuple[Unit, ...], schema: Any) -> list[dict[str, Any]]:
    return [row for unit in units for row in read_table(work.fetch(unit), schema)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One run over a site with all kinds of trouble serves several tests."""
    folder = tmp_path_factory.mktemp("web")
    with serving(folder, make_site(40)):
        yield folder


NAMES = [*make_site(40), "b.test/missing", "a.test/7.png", "b.test/gone"]
NAMES = [name for name in NAMES if not name.endswith("robots.txt")]


@pytest.fixture(scope="module")
def run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Downloaded]:
    work = Work.local(tmp_path_factory.mktemp("home"))
    params = DownloadParams(
        user_agent=AGENT, private_hosts=str(site / "hosts.json"), chunk=20, **QUICK
    )
    pairs = make_pairs(NAMES)
    return work, download_images(as_table(work, pairs[::2], pairs[1::2]), params, work)


def test_good_images_come_as_they_are(run: tuple[Work, Downloaded]) -> None:
    found = samples(*run)
    good = {name: entry for name, entry in make_site(40).items() if name not in EXPECTED}
    assert set(found) == {name for name in good if not name.endswith("robots.txt")}
    for name, sample in found.items():
        assert sample.image == base64.b64decode(good[name]["body"])
        assert sample.record["sha256"] == hashlib.sha256(sample.image).hexdigest()
        assert sample.caption == sample.record["caption"]
    kinds = {name: found[name].extension for name in ("a.test/0.png", "a.test/jpeg")}
    kinds |= {name: found[name].extension for name in ("b.test/webp", "b.test/gif")}
    assert list(kinds.values()) == ["png", "jpg", "webp", "gif"]


def test_every_other_pair_is_dropped_with_its_reason(run: tuple[Work, Downloaded]) -> None:
    work, found = run
    drops = rows(work, found.drops.units, DROP_SCHEMA)
    assert {d["image_url"][7:]: (d["reason"], d["detail"]) for d in drops} == EXPECTED
    assert {d["stage"] for d in drops} == {"download_images"}


def test_the_counts_add_up(run: tuple[Work, Downloaded]) -> None:
    work, found = run
    drops = rows(work, found.drops.units, DROP_SCHEMA)
    outcomes = rows(work, found.outcomes.units, OUTCOME_SCHEMA)
    images = [sample.key for unit in found.images.units for sample in read_shard(work.fetch(unit))]
    keys = [pair["key"] for pair in make_pairs(NAMES)]
    assert sorted(images + [drop["key"] for drop in drops]) == sorted(keys)
    assert sorted(row["key"] for row in outcomes) == sorted(keys)
    assert {row["key"] for row in outcomes if row["outcome"] == "ok"} == set(images)
    assert work.counts["kept"] == len(images) == found.images.records
    assert work.counts["dropped/not_found"] == 3
    transient = {row["image_url"][7:] for row in outcomes if not row["permanent"]}
    assert transient == {"b.test/broken"}


def test_each_url_is_asked_for_as_often_as_its_passes(
    run: tuple[Work, Downloaded], site: Path
) -> None:
    """Pairs share an image's fetch, and only what may pass is asked for again."""
    asked = requests(site)
    twice = {"b.test/busy", "b.test/flaky", "b.test/broken"}
    once = set(NAMES) - twice - {"c.test/forbidden"}
    assert {name for name, count in asked.items() if count == 2} == twice
    assert {name for name, count in asked.items() if count == 1} - once == {
        "a.test/robots.txt", "b.test/robots.txt", "c.test/robots.txt",
    }  # fmt: skip
    assert asked["c.test/forbidden"] == 0


def test_times_and_addresses_are_kept_beside_the_digests(run: tuple[Work, Downloaded]) -> None:
    work, _ = run
    (side,) = work.side
    attempts = pq.read_table(work.fetch(side)).to_pylist()
    busy = [a for a in attempts if a["url"] == "http://b.test/busy"]
    assert [(a["attempt"], a["outcome"]) for a in busy] == [(1, "rate_limited"), (2, "ok")]
    assert busy[1]["started"] >= busy[0]["not_before"]
    assert work.counts["requests"] == sum(a["requested"] for a in attempts)


def parameters(hosts: Path, **more: Any) -> DownloadParams:
    return DownloadParams(user_agent=AGENT, private_hosts=str(hosts), **{**QUICK, **more})


def test_next_months_pairs_are_all_that_is_fetched(tmp_path: Path) -> None:
    first, second = (make_pairs([f"a.test/{n}.png" for n in r]) for r in (range(6), range(6, 9)))
    with serving(tmp_path / "web", make_site(10)) as hosts:
        work = Work.local(tmp_path, state=tmp_path / "one")
        before = download_images(as_table(work, first), parameters(hosts), work)
        asked = requests(tmp_path / "web")
        work = Work.local(tmp_path, state=tmp_path / "two")
        after = download_images(as_table(work, first, second), parameters(hosts), work)
    assert after.images.units[:1] == before.images.units
    assert after.images.records == 9
    new = requests(tmp_path / "web") - asked
    assert set(new) == {"a.test/robots.txt", "a.test/6.png", "a.test/7.png", "a.test/8.png"}


def test_a_pair_that_is_lost_costs_its_own_chunk_only(tmp_path: Path) -> None:
    """As when a filter that counts captions over all months drops a pair of the first one."""
    pairs, lost = make_pairs([f"a.test/{n}.png" for n in range(60)]), 23
    with serving(tmp_path / "web", make_site(60)) as hosts:
        work = Work.local(tmp_path, state=tmp_path / "one")
        params = parameters(hosts, chunk=12)
        before = download_images(as_table(work, pairs), params, work)
        asked = requests(tmp_path / "web")
        work = Work.local(tmp_path, state=tmp_path / "two")
        table = as_table(work, pairs[:lost] + pairs[lost + 1 :])
        after = download_images(table, params, work)
    (changed,) = set(before.images.units) - set(after.images.units)
    assert len(before.images.units) >= 5
    beside = {sample.record["image_url"][7:] for sample in read_shard(work.fetch(changed))}
    new = requests(tmp_path / "web") - asked
    assert set(new) == (beside - {f"a.test/{lost}.png"}) | {"a.test/robots.txt"}
    assert (work.made, work.reused) == (2, len(before.images.units) - 1)  # with the split
    assert after.images.records == 59


def test_resizing_decodes_and_drops_what_cannot_be(tmp_path: Path) -> None:
    whole = encoded(1, size=(64, 48))
    site = {"a.test/a.png": page(whole), "a.test/cut.png": page(whole[:60])}
    with serving(tmp_path / "web", site) as hosts:
        work = Work.local(tmp_path)
        params = parameters(hosts, resize_mode="border", image_size=32)
        found = download_images(as_table(work, make_pairs(list(site))), params, work)
    (sample,) = samples(work, found).values()
    assert sample.extension == "jpg"
    assert Image.open(io.BytesIO(sample.image)).size == (32, 32)
    assert sample.record["sha256"] == hashlib.sha256(whole).hexdigest()
    (drop,) = rows(work, found.drops.units, DROP_SCHEMA)
    assert (drop["reason"], drop["sha256"]) == (
        "undecodable", hashlib.sha256(whole[:60]).hexdigest(),
    )  # fmt: skip


def test_no_image_at_all_stops_with_the_funnel(tmp_path: Path) -> None:
    with serving(tmp_path / "web", {"a.test/a.png": {"status": 404}}) as hosts:
        work = Work.local(tmp_path)
        table = as_table(work, make_pairs(["a.test/a.png", "a.test/b.png"]))
        with pytest.raises(PermanentError, match="2 not_found"):
            download_images(table, parameters(hosts), work)


def test_a_time_without_network_is_not_remembered(tmp_path: Path) -> None:
    """Not one host answers: an error that is tried again, and then every image is asked for."""
    names = ["a.test/0.png", "a.test/1.png", "b.test/2.png"]
    site = {name: page(encoded(number)) for number, name in enumerate(names)}
    work = Work.local(tmp_path)
    table = as_table(work, make_pairs(names))
    with serving(tmp_path / "web", site) as hosts:
        pass  # it has answered nothing when it ends
    with pytest.raises(ConnectionError, match=r"none of the 2 hosts .* could be reached"):
        download_images(table, parameters(hosts), work)
    hosts.unlink()
    with serving(tmp_path / "web", site) as hosts:
        found = download_images(table, parameters(hosts), work)
    assert set(samples(work, found)) == set(names)


def test_one_host_that_is_gone_is_no_reason_to_wait(tmp_path: Path) -> None:
    with serving(tmp_path / "web", make_site(10)) as hosts:
        work = Work.local(tmp_path)
        table = as_table(
            work, make_pairs([f"a.test/{n}.png" for n in range(3)]), make_pairs(["gone.test/a"])
        )
        known = json.loads(hosts.read_text())["hosts"]
        hosts.write_text(json.dumps({"hosts": {**known, "gone.test:80": "127.0.0.1:9"}}))
        found = download_images(table, parameters(hosts), work)
    assert found.images.records == 3
    (drop,) = rows(work, found.drops.units, DROP_SCHEMA)
    assert drop["reason"] == "connection_error"


def test_a_robots_txt_that_cannot_be_read_is_a_reason_of_its_own(tmp_path: Path) -> None:
    site = make_site(3) | {"d.test/robots.txt": {"status": 503}, "d.test/a": page(encoded(7))}
    with serving(tmp_path / "web", site) as hosts:
        work = Work.local(tmp_path)
        table = as_table(work, make_pairs(["a.test/0.png", "d.test/a"]))
        found = download_images(table, parameters(hosts), work)
    (drop,) = rows(work, found.drops.units, DROP_SCHEMA)
    assert drop["reason"] == "robots_unavailable"
    assert requests(tmp_path / "web")["d.test/a"] == 0


def test_a_missing_file_of_private_hosts_is_named(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    params = parameters(Path("home://hosts.json"))
    with pytest.raises(PermanentError, match="private_hosts"):
        download_images(as_table(work, make_pairs(["a.test/a.png"])), params, work)


@pytest.mark.parametrize("agent", ["", "Mozilla/5.0", "(+https://example.org)", "a/1 x\nb@c.de"])
def test_a_user_agent_must_be_honest(agent: str) -> None:
    with pytest.raises(ValueError, match="with a contact"):
        DownloadParams(user_agent=agent)


def test_how_it_is_fetched_is_no_part_of_what_it_is() -> None:
    params = DownloadParams(user_agent=AGENT, processes=7, private_hosts="x", host_rate=3)
    assert params.identity() == DownloadParams(user_agent=AGENT).identity()


# Kills

COUNT = 120
# Forked and not spawned: these processes have everything imported already.
FORK = multiprocessing.get_context("fork")


def run_stage(home: Path, hosts: Path, batch: int, report: Path) -> None:
    work = Work.local(home)
    pairs = make_pairs([f"a.test/{number}.png" for number in range(COUNT)])
    params = parameters(hosts, chunk=30, batch=batch)
    found = download_images(as_table(work, pairs), params, work)
    lines = [work.reused, found.images.digest, found.drops.digest, found.outcomes.digest]
    report.write_text("\n".join(map(str, lines)))


def slow_site(count: int) -> dict[str, dict[str, Any]]:
    site = {f"a.test/{number}.png": page(encoded(number), delay=0.05) for number in range(count)}
    for number in range(0, count, 17):
        site[f"a.test/{number}.png"] = {"status": 404}
    return site


@dataclass
class Running:
    """A stage in a process of its own."""

    process: multiprocessing.process.BaseProcess
    report: Path

    def finish(self) -> tuple[int, list[str]]:
        """Units that were found made, and the digests."""
        self.process.join(120)
        assert self.process.exitcode == 0
        reused, *digests = self.report.read_text().split()
        return int(reused), digests

    def fail(self) -> None:
        """Wait for the end, which must be a bad one."""
        self.process.join(120)
        assert self.process.exitcode not in (0, None)


def start_stage(home: Path, hosts: Path, batch: int = COUNT) -> Running:
    report = home.with_name("report")
    report.unlink(missing_ok=True)
    process = FORK.Process(target=run_stage, args=(home, hosts, batch, report))
    process.start()
    return Running(process, report)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Digests of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with serving(folder / "web", slow_site(COUNT)) as hosts:
        return start_stage(folder / "home", hosts).finish()[1]


def below(process: psutil.Process, word: str) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if word in line and "guard.py" not in line:
            found.append(child)
    return found


def wait_for_requests(web: Path, least: int) -> None:
    deadline = time.monotonic() + 60
    while requests(web).total() < least:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("victim", ["everything", "parent", "gateway", "img2dataset"])
def test_a_kill_changes_nothing(tmp_path: Path, uninterrupted: list[str], victim: str) -> None:
    """Killed in the middle and run again, the stage ends with what an uninterrupted run gives."""
    web, home = tmp_path / "web", tmp_path / "home"
    moment = random.Random(victim).randrange(20, 100)
    with serving(web, slow_site(COUNT)) as hosts:
        stage = start_stage(home, hosts)
        wait_for_requests(web, moment)
        kill(psutil.Process(stage.process.pid), victim)
        if victim == "img2dataset":  # the next round goes on
            assert stage.finish() == (0, uninterrupted)
        else:
            stage.fail()
            assert start_stage(home, hosts).finish()[1] == uninterrupted
        asked = requests(web)
    # What was under way when the gateway died may be asked for again, nothing else.
    under_way = 0 if victim == "img2dataset" else QUICK["threads"] * 2
    images = {name: count for name, count in asked.items() if "robots" not in name}
    assert sum(images.values()) - COUNT <= under_way
    assert len(images) == COUNT


def kill(stage: psutil.Process, victim: str) -> None:
    children = stage.children(recursive=True)
    if victim == "everything":
        for one in [stage, *children]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    elif victim == "parent":
        stage.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
    else:
        program = {"gateway": "infra.gateway", "img2dataset": "img2dataset_main"}[victim]
        for one in below(stage, program):
            with contextlib.suppress(psutil.NoSuchProcess):  # some end as soon as another has
                one.kill()


def test_chunks_that_were_finished_before_a_kill_are_not_made_again(
    tmp_path: Path, uninterrupted: list[str]
) -> None:
    web, home = tmp_path / "web", tmp_path / "home"
    with serving(web, slow_site(COUNT)) as hosts:
        stage = start_stage(home, hosts, batch=60)  # two chunks
        wait_for_requests(web, 80)
        kill(psutil.Process(stage.process.pid), "everything")
        stage.fail()
        reused, digests = start_stage(home, hosts, batch=60).finish()
    assert digests == uninterrupted
    assert reused == 3  # the table's one part, split, and two chunks


def test_a_gateway_that_cannot_write_ends_the_stage_with_its_words(tmp_path: Path) -> None:
    """As on a full disk: nothing is half done, and the error says what is wrong."""
    with serving(tmp_path / "web", make_site(3)) as hosts:
        work = Work.local(tmp_path)
        bodies = work.state / "frozen" / "bodies"
        bodies.write_text("not a folder")
        table = as_table(work, make_pairs(["a.test/0.png"]))
        with pytest.raises(ProcessFailed, match=r"the gateway ended with status 70[\s\S]*bodies"):
            download_images(table, parameters(hosts), work)
