"""Data stages on a disk that fills up: it is said, nothing half-written counts, and they go on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.declaration import bind
from flows.stage_runner import RunIds, StageRunner, references
from infra.environment import Environment
from infra.errors import DiskFull
from infra.manifests import latest
from infra.store import Store, hash_file
from infra.trace import resolve, verify
from schemas.artifact import Unit
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration
from tests.small_disk import small_disk
from tests.tasks.sources.warc_files import simple
from tests.tasks.test_download_images import AGENT, encoded, page
from tests.tasks.test_import_shards import sample, tar
from tests.tasks.web import requests, serving

IMAGES = 120
DECLARATION = f"""\
name: crawl
stages:
  pairs:
    task: collect_pairs
    params: {{files: ["FOLDER/*.warc.gz"]}}
  fetched:
    task: download_images
    inputs: {{pairs: pairs}}
    params:
      user_agent: "{AGENT}"
      private_hosts: FOLDER/web/hosts.json
      chunk: 40
      host_rate: 0
      threads: 8
      processes: 1
  taken:
    task: import_shards
    params: {{files: ["FOLDER/*.tar"]}}
  unique:
    task: dedup_images
    inputs: {{images: taken}}
"""
# Of what a stage adds to the disk, how much of it there is room for when it is tried.
ROOM = (0.0, 0.25, 0.75)


class Crawl:
    """Stages made in a home on a small disk, of which a file may take what is left."""

    def __init__(self, files: Path, disk: Path) -> None:
        self.environment = Environment(home=disk / "home", dask="inline")
        self.store = Store(self.environment.store_url)
        self._ballast = disk / "ballast"
        text = DECLARATION.replace("FOLDER", str(files))
        self._stages = bind(parse_declaration(text, "crawl.yaml")).stages

    def make(self, name: str) -> Manifest:
        """Make a stage whose inputs are made."""
        stage, runner = self._stages[name], StageRunner("crawl", self.store, self.environment)
        inputs = {argument: references(self._made(link.stage))[link.output]
                  for argument, link in stage.inputs.items()}  # fmt: skip
        identity, _ = runner.find(stage, inputs)
        return runner.make(stage, inputs, identity, RunIds(), lambda event: None)

    def _made(self, name: str) -> Manifest:
        found = latest(self.store, "crawl", name)
        assert found is not None
        return found

    def inputs_of(self, name: str) -> list[str]:
        return [link.stage for link in self._stages[name].inputs.values()]

    def leave(self, room: int) -> None:
        """Fill the disk but for so many bytes."""
        self._ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(self._ballast.parent).free
        with self._ballast.open("wb") as file:
            file.write(bytes(max(free - room, 0)))

    def make_room(self) -> None:
        self._ballast.unlink()

    def memos(self) -> dict[str, int]:
        """When each finished unit was noted down."""
        folder = Path(self.store.path("memo"))
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")}

    def check_whole(self) -> None:
        """What is in the store is whole, and what is noted down is in the store."""
        for path in Path(self.store.path("blobs")).glob("*/*"):
            assert path.name == hash_file(path)[0]
        for name in self.memos():
            memo = self.store.read(f"memo/{name}")
            units = [Unit(**unit) for units in memo["outputs"].values() for unit in units]
            assert all(self.store.check(unit) is None for unit in units)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 24 << 20) as folder:
        yield folder


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """What the stages read, and a site with its images, on a disk with room."""
    folder = tmp_path / "files"
    folder.mkdir()
    for part in range(3):
        some = range(part * IMAGES // 3, (part + 1) * IMAGES // 3)
        maker = simple(0)
        for n in some:
            said = f'<img src="i{n}.png" alt="picture number {n}">' + "x" * 20_000
            maker.add(f"http://a.test/p{n}", f"<html><body>{said}</body></html>")
        (folder / f"{part}.warc.gz").write_bytes(maker.bytes())
        tar(folder / f"{part}.tar", [member for n in some for member in sample(n % 100)])
    site = {f"a.test/i{n}.png": page(encoded(n, size=(200, 150))) for n in range(IMAGES)}
    with serving(folder / "web", site):
        yield folder


@pytest.mark.parametrize("name", ["pairs", "fetched", "unique"])
def test_a_full_disk_is_named_and_the_stage_goes_on_once_there_is_room(
    name: str, disk: Path, files: Path, tmp_path: Path
) -> None:
    whole, crawl = Crawl(files, tmp_path / "whole"), Crawl(files, disk)
    for one in (whole, crawl):
        for before in one.inputs_of(name):
            one.make(before)
    start = _size(tmp_path / "whole")
    expected = whole.make(name)
    added = _size(tmp_path / "whole") - start
    asked = requests(files / "web")

    finished: dict[str, int] = {}
    for share in ROOM:
        crawl.leave(int(share * added))
        with pytest.raises(DiskFull, match=_words(crawl)):
            crawl.make(name)
        assert latest(crawl.store, "crawl", name) is None
        crawl.check_whole()
        finished = {**crawl.memos(), **finished}
    crawl.make_room()
    made = crawl.make(name)

    assert finished.items() <= crawl.memos().items()
    assert {n: o.digest for n, o in made.outputs.items()} == {
        n: o.digest for n, o in expected.outputs.items()
    }
    assert crawl.store.names("partial") == []
    assert verify(crawl.store, resolve(crawl.store, f"crawl/{name}", "")) == []
    assert set(requests(files / "web")) == set(asked)


def _words(crawl: Crawl) -> str:
    folder = re.escape(crawl.store.root)
    return rf"the disk is full on \S+: free are 0\.\d MB for {folder}.*; make room and run again"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
