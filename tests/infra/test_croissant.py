"""Datasets are described so that Croissant's own library accepts it and reads the shards by it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from PIL import Image

from infra.croissant import describe
from infra.errors import PermanentError
from infra.shards import read_shard
from infra.trace import chain, resolve
from infra.work import Work
from schemas.artifact import DropTable, PairTable
from schemas.manifest import Manifest
from schemas.stage import Source
from tests.infra.making import manifest, publish
from tests.tasks.image_shards import add_samples, make_sample, saved

# The library leaves the files that it reads to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Dataset:
    """Two shards behind a table of pairs, published; and their description."""

    def __init__(self, folder: Path) -> None:
        self.work = Work.local(folder)
        samples = [
            make_sample(f"{n}", saved(Image.new("RGB", (8 + n, 8), (20 * n, 0, 0))), f"caption {n}")
            for n in range(7)
        ]
        self.images = add_samples(self.work, samples, shards=2)
        source = Source(
            uri="https://a.test/x.warc.gz", name="x.warc.gz", size=9, identity="etag:9:abc"
        )
        self.pairs = publish(
            self.work.store,
            manifest(
                "pairs", {"pairs": PairTable(), "drops": DropTable()}, sources=(source,),
                counts={"kept": 9},
            ),
        )  # fmt: skip
        self.clean = publish(
            self.work.store,
            manifest(
                "clean", {"kept": self.images}, {"pairs": self.pairs},
                params={"filters": [{"min_size": {"pixels": 8}}]},
                counts={"kept": 7, "dropped/too_small": 2},
            ),
        )  # fmt: skip
        self.file = folder / "reports" / "clean.croissant.json"

    def describe(self, **options: str) -> dict[str, Any]:
        found = chain(self.work.store, resolve(self.work.store, "shapes/clean", ""))
        described = describe(self.work.store, found.manifests, self.file, **options)
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps(described))
        return described

    def records(self, name: str) -> list[dict[str, Any]]:
        read = mlcroissant.Dataset(jsonld=str(self.file)).records(name)
        return [{key.partition("/")[2]: value for key, value in row.items()} for row in read]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    # Where the library unpacks archives; by default in the user's home, by path and not by content.
    extract = importlib.import_module("mlcroissant._src.operation_graph.operations.extract")
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "unpacked"))
    return Dataset(tmp_path)


def test_it_is_valid_and_complete(dataset: Dataset) -> None:
    dataset.describe(license_url="https://creativecommons.org/licenses/by/4.0/")
    metadata = mlcroissant.Dataset(jsonld=str(dataset.file)).metadata
    assert metadata.issues.errors == set()
    assert metadata.issues.warnings == set()
    assert metadata.name == "shapes-clean"


def test_every_shard_is_named_with_its_digest(dataset: Dataset) -> None:
    described = dataset.describe()
    files = [one for one in described["distribution"] if one["@type"] == "cr:FileObject"]
    assert [one["sha256"] for one in files] == [unit.sha256 for unit in dataset.images.units]
    for one, unit in zip(files, dataset.images.units, strict=True):
        path = dataset.file.parent / one["contentUrl"]
        assert path.read_bytes() == dataset.work.fetch(unit).read_bytes()
        assert one["contentSize"] == f"{unit.size} B"
    moved = dataset.describe(base="https://data.test/clean/")["distribution"][1]["contentUrl"]
    assert moved == "https://data.test/clean/000001-images-00001.tar"


def test_images_and_captions_are_read_by_it(dataset: Dataset) -> None:
    dataset.describe()
    samples = {
        sample.key: sample
        for unit in dataset.images.units
        for sample in read_shard(dataset.work.fetch(unit))
    }
    captions = {_text(row["key"]): _text(row["caption"]) for row in dataset.records("captions")}
    assert captions == {key: sample.caption for key, sample in samples.items()}
    images = {_text(row["key"]): row["image"] for row in dataset.records("images")}
    assert images.keys() == samples.keys()
    for key, image in images.items():
        width = 8 + int(samples[key].caption.removeprefix("caption "))
        assert image.size == (width, 8)
        assert image.getpixel((0, 0)) == (20 * (width - 8), 0, 0)


def test_its_fields_are_what_records_hold(dataset: Dataset) -> None:
    (pairs,) = [one for one in dataset.describe()["recordSet"] if one["@id"] == "pairs"]
    paths = {field["name"]: field["source"]["extract"]["jsonPath"] for field in pairs["field"]}
    assert paths == {name: f"$.{name}" for name in paths}
    record = next(read_shard(dataset.work.fetch(dataset.images.units[0]))).record
    assert record.keys() <= paths.keys()
    assert {"license", "opt_out", "image_url", "page_url", "sha256"} <= paths.keys()


def test_origin_and_filters_are_cited(dataset: Dataset) -> None:
    described = dataset.describe()
    assert described["isBasedOn"] == ["https://a.test/x.warc.gz"]
    assert dataset.images.digest in described["citeAs"]
    collected, cleaned = described["rai:dataPreprocessingProtocol"]
    assert described["rai:dataCollection"] == [collected]
    assert '{"filters":[{"min_size":{"pixels":8}}]}' in cleaned
    assert "dropped/too_small 2, kept 7" in cleaned
    for made, text in ((dataset.pairs, collected), (dataset.clean, cleaned)):
        assert made.provenance in text


def test_what_keeps_no_images_is_refused(dataset: Dataset) -> None:
    found: Manifest = dataset.pairs
    with pytest.raises(PermanentError, match="shapes/pairs keeps no image_shards but drop_table"):
        describe(dataset.work.store, [found], dataset.file)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
