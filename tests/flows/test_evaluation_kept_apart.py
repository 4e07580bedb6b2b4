"""A declared set to evaluate on is kept out of training: run whole, cached, and shown."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

from flows.declaration import BoundPipeline, bind
from flows.plan import plan
from flows.reporting import gather, write_report
from flows.stage_runner import RunIds, StageRunner, references
from infra.croissant import describe
from infra.demo_web import files
from infra.demo_web.drawing import Pair, random_pairs
from infra.environment import Environment
from infra.manifests import latest
from infra.shards import read_shard
from infra.store import Store
from infra.tables import read_table
from infra.trace import chain, render, resolve, verify
from schemas.manifest import Manifest
from schemas.pipeline import parse_declaration
from schemas.records import DROP_SCHEMA
from tests.flows.command import Tapir
from tests.tasks.image_shards import saved

DECLARATION = """\
name: apart
stages:
  images:
    task: import_shards
    params: {files: ["FOLDER/web/*.tar"]}
  clean:
    task: filter_images
    inputs: {images: images}
    params: {filters: [decodable, min_size: {pixels: 24}]}
  validation:
    task: read_captioned
    params: {format: folder, files: ["FOLDER/set/*"]}
  unique:
    task: dedup_images
    inputs: {images: clean, evaluation: validation}
"""
PICTURES, PLANTED = 40, 6  # of the web, and those of them that are in the set, too


class Apart:
    """The pipeline in a folder: two tars of the web, and a set to evaluate on."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.pairs = list(random_pairs(PICTURES, seed=5))
        self.captions = [f"{pair.caption}, number {n}" for n, pair in enumerate(self.pairs)]
        every = list(zip(self.captions, self.pairs, strict=True))
        for number in range(2):
            _write_tar(folder / "web" / f"{number}.tar", every[number::2])
        self.tapir = Tapir(folder, DECLARATION.replace("FOLDER", str(folder)), server)
        self.environment = Environment(home=self.tapir.home, dask="inline")
        self.store = Store(self.environment.store_url)

    def write_set(self, planted: Iterable[int]) -> None:
        """Pictures of the web under other names, every other one re-encoded, and 8 others."""
        (self.folder / "set").mkdir(exist_ok=True)
        rng = random.Random(1)
        found = {f"planted-{n}": self.pairs[n].picture for n in planted}
        found |= {f"other-{n}": p.picture for n, p in enumerate(random_pairs(8, seed=6))}
        for name, picture in found.items():
            again = name.startswith("planted") and int(name.split("-")[1]) % 2
            content = files.again(picture, rng, 0).content if again else saved(picture)
            (self.folder / "set" / f"{name}.{'jpg' if again else 'png'}").write_bytes(content)
            (self.folder / "set" / f"{name}.txt").write_text(f"a drawing, {name}")

    def bound(self) -> BoundPipeline:
        return bind(parse_declaration(self.tapir.file.read_text(), "apart.yaml"))

    def states(self) -> dict[str, str]:
        """What `tapir plan` says."""
        runner = StageRunner("apart", self.store, self.environment)
        return {stage.name: stage.state for stage in plan(self.bound(), runner)}

    def run(self) -> list[str]:
        """Run it as a new process would; the names of the stages that were made."""
        runner, made = StageRunner("apart", self.store, self.environment), []
        finished: dict[str, Manifest] = {}
        for stage in self.bound().stages.values():
            inputs = {
                argument: references(finished[link.stage])[link.output]
                for argument, link in stage.inputs.items()
            }
            identity, manifest = runner.find(stage, inputs)
            if manifest is None:
                manifest = runner.make(stage, inputs, identity, RunIds(), lambda event: None)
                made.append(stage.name)
            finished[stage.name] = manifest
        return made

    def manifest(self, stage: str) -> Manifest:
        found = latest(self.store, "apart", stage)
        assert found is not None
        return found

    def kept(self) -> set[str]:
        """The captions of the pairs that are left to train on."""
        units = self.manifest("unique").outputs["kept"].units
        shards = (read_shard(self.store.fetch(unit, self.folder / "fetched")) for unit in units)
        return {sample.caption for shard in shards for sample in shard}

    def drops(self) -> dict[str, str]:
        """By caption the reason."""
        units = self.manifest("unique").outputs["drops"].units
        tables = (read_table(self.store.fetch(unit, self.folder / "fetched"), DROP_SCHEMA)
                  for unit in units)  # fmt: skip
        return {row["caption"]: row["reason"] for table in tables for row in table}


def _write_tar(path: Path, pairs: Iterable[tuple[str, Pair]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, (caption, pair) in enumerate(pairs):
            described = {"url": f"http://a.test/{path.stem}/{number}.png"}
            for ending, content in (
                ("png", saved(pair.picture)), ("txt", caption.encode()),
                ("json", json.dumps(described).encode()),
            ):  # fmt: skip
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_what_is_evaluated_on_is_not_trained_on(tmp_path: Path, server: str) -> None:
    made = Apart(tmp_path, server)
    captions = made.captions
    made.write_set(range(PLANTED))
    said = made.tapir("run", str(made.tapir.file), "--dask", "inline")
    assert "unique: done" in said

    assert made.drops() == dict.fromkeys(captions[:PLANTED], "evaluation_picture")
    assert made.kept() == set(captions[PLANTED:])
    counts = made.manifest("unique").counts
    assert counts["kept"] == PICTURES - PLANTED
    assert counts["dropped/evaluation_picture"] == PLANTED
    content = gather(made.bound(), made.store, made.environment, tmp_path / "fetched")
    rows = {row.stage: row for row in content.funnel}
    assert (rows["unique"].kept, rows["unique"].dropped) == (PICTURES - PLANTED, PLANTED)
    assert [(g.reason, g.count) for g in rows["unique"].drops] == [("evaluation_picture", PLANTED)]
    page = tmp_path / "home" / "reports" / "apart" / "index.html"
    assert "evaluation_picture" in page.read_text()
    assert set(made.states().values()) == {"cached"}
    assert made.run() == []
    _check_views(made, PICTURES - PLANTED)

    # Another set: one of the planted is no longer in it, and another one is.
    for path in (tmp_path / "set").glob("planted-1.*"):
        path.unlink()
    made.write_set([0, 2, 3, 4, 5, PLANTED])
    assert made.states() == {
        "images": "cached", "clean": "cached", "validation": "run", "unique": "run",
    }  # fmt: skip
    assert made.run() == ["validation", "unique"]
    held = [captions[n] for n in (0, 2, 3, 4, 5, PLANTED)]
    assert made.drops() == dict.fromkeys(held, "evaluation_picture")
    assert made.kept() == set(captions) - set(held)
    assert made.manifest("unique").run.units_reused >= 2  # what was trained on is known already
    assert (
        "evaluation_picture" in write_report(made.bound(), made.store, made.environment).read_text()
    )


def _check_views(made: Apart, count: int) -> None:
    """The origins of what is left, and its description for others."""
    reference = resolve(made.store, "apart/unique", made.environment.tracking_uri)
    found = chain(made.store, reference)
    assert not found.broken
    assert {one.stage for one in found.manifests} == {"unique", "clean", "images", "validation"}
    said = render(found)
    assert "0.tar" in said and "planted-0.png" in said and "evaluation" in said
    assert verify(made.store, reference) == []
    described = describe(made.store, found.manifests, made.folder / "unique.croissant.json")
    assert described["description"].startswith(f"{count} images with captions")
    (sentence,) = [s for s in described["rai:dataPreprocessingProtocol"] if "dedup_images" in s]
    assert f"dropped/evaluation_picture {PLANTED}" in sentence
    assert any("planted-0.png" in one for one in described["isBasedOn"])
