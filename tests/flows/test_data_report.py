"""The report says of data what tables and shards say, and shows nothing of the web raw."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from flows import data_report
from flows.artifacts import as_markdown, funnel_rows
from flows.declaration import BoundPipeline, bind
from flows.reporting import gather, write_report
from flows.stage_runner import RunIds, StageRunner, references
from infra.environment import Environment
from infra.manifests import latest
from infra.report.content import Content
from infra.store import Store
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration
from tests.tasks.image_shards import saved

DECLARATION = """\
name: two_tars
stages:
  images:
    task: import_shards
    params: {files: ["FOLDER/*.tar"]}
  clean:
    task: filter_images
    inputs: {images: images}
    params: {filters: [decodable, min_size: {pixels: 24}]}
"""
HOSTILE = 'a <script>alert("x")</script> [link](javascript:alert) `|` of two words, a.bell@b.test'


@dataclass(frozen=True)
class Pair:
    domain: str
    caption: str
    size: tuple[int, int]

    @property
    def kept(self) -> bool:
        return min(self.size) >= 24


def pairs_of(seed: str, count: int) -> list[Pair]:
    draw = random.Random(seed)
    sizes = [(8, 40), (32, 32), (64, 32), (40, 60)]
    return [
        Pair(
            f"{draw.choice('abc')}.test", HOSTILE if n == 0 else " ".join("w" * draw.randint(1, 9)),
            sizes[0] if n == 0 else draw.choice(sizes),
        )
        for n in range(count)
    ]  # fmt: skip


def write_tar(path: Path, pairs: list[Pair]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, pair in enumerate(pairs):
            drawn = random.Random(f"{path.name}/{number}")
            noise = drawn.randbytes(3 * pair.size[0] * pair.size[1])  # so that no two are the same
            image = saved(Image.frombytes("RGB", pair.size, noise), "PNG")
            described = {"url": f"http://{pair.domain}/{path.stem}/{number}.png"}
            for ending, content in (
                ("png", image), ("txt", pair.caption.encode()),
                ("json", json.dumps(described).encode()),
            ):  # fmt: skip
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


class Home:
    """The pipeline in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = Environment(home=folder / "home", dask="inline")
        self.store = Store(self.environment.store_url)
        self.pairs: dict[str, list[Pair]] = {}

    def add(self, name: str, count: int) -> None:
        self.pairs[name] = pairs_of(name, count)
        write_tar(self.folder / name, self.pairs[name])

    @property
    def every(self) -> list[Pair]:
        return [pair for pairs in self.pairs.values() for pair in pairs]

    def bound(self) -> BoundPipeline:
        text = DECLARATION.replace("FOLDER", str(self.folder))
        return bind(parse_declaration(text, "two_tars.yaml"))

    def run(self) -> None:
        runner = StageRunner("two_tars", self.store, self.environment)
        finished: dict[str, Manifest] = {}
        for stage in self.bound().stages.values():
            inputs = {
                argument: references(finished[link.stage])[link.output]
                for argument, link in stage.inputs.items()
            }
            identity, _ = runner.find(stage, inputs)
            finished[stage.name] = runner.make(stage, inputs, identity, RunIds(), lambda _: None)

    def gather(self) -> Content:
        return gather(self.bound(), self.store, self.environment, self.folder / "fetched")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("two"))
    made.add("one.tar", 60)
    made.run()
    made.add("two.tar", 25)
    made.run()
    return made


def test_the_funnel_counts_every_pair(home: Home) -> None:
    rows = {row.stage: row for row in home.gather().funnel}
    dropped = sum(not pair.kept for pair in home.every)
    assert (rows["images"].kept, rows["images"].dropped) == (85, 0)
    assert (rows["clean"].kept, rows["clean"].dropped) == (85 - dropped, dropped)
    assert [(group.reason, group.count) for group in rows["clean"].drops] == [
        ("too_small", dropped)
    ]


@pytest.mark.parametrize("what", ["source", "domain"])
def test_sources_and_domains_have_their_own_funnel(home: Home, what: str) -> None:
    (table,) = [one for one in home.gather().data if one.title == f"Pairs by {what}"]
    assert table.columns == (what, "images", "clean")
    # Both files were named by one entry of the declaration.
    name = {"source": lambda pair: f"{home.folder}/*.tar", "domain": lambda pair: pair.domain}[what]
    found = Counter(name(pair) for pair in home.every)
    kept = Counter(name(pair) for pair in home.every if pair.kept)
    assert {row[0]: row[1:] for row in table.rows} == {
        one: (str(found[one]), f"{kept[one]} / {found[one] - kept[one]}") for one in found
    }


def test_distributions_are_of_what_is_left(home: Home) -> None:
    bars = {one.title: one for one in home.gather().bars}
    left = [pair for pair in home.every if pair.kept]
    words = {"1": (1, 1), "2": (2, 2), "3–4": (3, 4), "5–8": (5, 8), "9–16": (9, 16)}
    for label, before, after in bars["Caption length, words"].rows:
        low, high = words[label]
        for pairs, count in ((home.every, before), (left, after)):
            assert count == sum(low <= len(pair.caption.split()) <= high for pair in pairs)
    sides = Counter(min(pair.size) for pair in left)
    assert {row[0]: row[2] for row in bars["Shorter side, pixels"].rows} == {
        "17–32": sides[32], "33–64": sides[40],
    }  # fmt: skip
    aspects = Counter(pair.size for pair in left)
    assert {row[0]: row[2] for row in bars["Width : height"].rows} == {
        "1:1.4": aspects[40, 60], "1:1": aspects[32, 32], "2:1": aspects[64, 32],
    }  # fmt: skip
    top = [row[0] for row in bars["Domains with most kilobytes of images"].rows]
    assert sorted(top) == sorted({pair.domain for pair in left})


def test_what_changed_is_said(home: Home) -> None:
    changed = {table.title: table for table in home.gather().changes}
    kept = [sum(pair.kept for pair in home.pairs["one.tar"]), sum(p.kept for p in home.every)]
    for stage, (before, now) in {"images": (60, 85), "clean": kept}.items():
        assert ("kept", str(before), str(now)) in changed[stage].rows
    names = [row[0] for row in changed["images"].rows]
    assert "source two.tar" in names and "source one.tar" not in names
    assert "gone." in changed["images"].note


def test_a_unit_is_counted_once(home: Home) -> None:
    home.gather()
    manifests = {name: made for name in ("images", "clean")
                 if (made := latest(home.store, "two_tars", name))}  # fmt: skip
    work = data_report._work(manifests, home.store, home.environment, home.folder / "again")
    units = [output for manifest in manifests.values() for output in manifest.outputs.values()]
    data_report._summary([one for one in units if one.kind in ("image_shards", "drop_table")], work)
    assert work.made == 0
    assert work.reused == sum(map(len, (o.units for o in units if o.kind != "findings")))


def test_nothing_of_the_web_stands_raw_on_the_page(home: Home) -> None:
    page = write_report(home.bound(), home.store, home.environment).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(" in page
    assert "bell@" not in page and "two words, [email]" in page  # dropped before any filter masked
    pictures = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page)
    assert pictures and {kind for kind, _ in pictures} == {"jpeg"}
    for _, text in pictures:
        with Image.open(io.BytesIO(base64.b64decode(text))) as shown:
            assert shown.format == "JPEG" and max(shown.size) <= 64
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_what_prefect_is_given_has_numbers_and_no_captions(home: Home) -> None:
    content = home.gather()
    dropped = sum(not pair.kept for pair in home.every)
    assert {"stage": "clean", "reason": "too_small", "kept": "", "dropped": dropped} in funnel_rows(
        content
    )
    text = as_markdown(content)
    assert "alert" not in text
    assert f"| clean | {85 - dropped} | {dropped} | too\\_small {dropped} |" in text
    assert "## What has changed" in text


def test_pictures_that_must_not_be_opened_are_not() -> None:
    # Pillow has other programs decode this one.
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    assert data_report.thumbnail(postscript) is None
    huge = saved(Image.new("1", (6000, 6000)), "PNG")
    assert data_report.thumbnail(huge) is None
    assert data_report.thumbnail(saved(Image.new("RGB", (9, 9)), "PNG")[:40]) is None
