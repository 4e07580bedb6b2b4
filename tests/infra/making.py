"""Manifests made by hand and published as the runner does, and MLflow databases made fast."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.lineage.client import open_client
from infra.store import Store
from schemas.artifact import Artifact, Unit, kinds
from schemas.manifest import Identity, InputRef, Manifest, Output, Run
from schemas.stage import Source

PIPELINE = "shapes"
CODE = {"tasks.made": "c" * 64}


@functools.cache
def _template() -> tempfile.TemporaryDirectory[str]:
    folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
    open_client(f"sqlite:///{folder.name}/mlflow.db")
    return folder


def fresh_database(folder: Path) -> str:
    """The URI of an empty database; making the tables takes 2 s, copying them nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"{_template().name}/mlflow.db", folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


def unit(store: Store, folder: Path, name: str, content: str, records: int | None = None) -> Unit:
    """A unit with this content in the store."""
    path = folder / name
    path.write_text(content)
    return store.put(path, name, records)


def manifest(
    stage: str,
    outputs: Mapping[str, Artifact],
    inputs: Mapping[str, Manifest] | None = None,
    **changes: Any,
) -> Manifest:
    """A manifest as the runner writes it; inputs are the first outputs of other manifests."""
    refs = {name: ref(made) for name, made in (inputs or {}).items()}
    params = changes.pop("params", {"limit": 3})
    sources: tuple[Source, ...] = changes.pop("sources", ())
    run = {"started": 1000.0, "ended": 1002.5, "machine": {"host": "here"}}
    identity = Identity(
        task=f"make_{stage}", params=params, versions={}, code=CODE,
        inputs={name: one.digest for name, one in refs.items()},
        sources=tuple((s.name, s.size, s.identity) for s in sources),
    )  # fmt: skip
    return Manifest(
        pipeline=PIPELINE, stage=stage, fingerprint=identity.fingerprint, identity=identity,
        params=params, outputs={name: Output.of(made) for name, made in outputs.items()},
        inputs=refs, sources=sources, run=Run.model_validate(run), **changes,
    )  # fmt: skip


def ref(made: Manifest, output: str | None = None) -> InputRef:
    """A reference to an output of a manifest."""
    name = output or next(iter(made.outputs))
    out = made.outputs[name]
    return InputRef(
        stage=made.stage, output=name, kind=out.kind, digest=out.digest, provenance=made.provenance
    )


def publish(store: Store, made: Manifest) -> Manifest:
    """Write a manifest and the entries that point to it."""
    pointer = {"provenance": made.provenance}
    store.write(f"manifests/{made.provenance}.json", made.model_dump(mode="json"))
    store.write(f"fingerprints/{made.fingerprint}", pointer)
    store.write(f"pipelines/{made.pipeline}/{made.stage}.json", pointer)
    return made


def artifact(kind: str, *units: Unit) -> Artifact:
    """An artifact of a kind."""
    return kinds()[kind](units=units)


class Shapes:
    """A small chain in a store: pages, pairs of them, images of those, a prior trained on both."""

    def __init__(self, folder: Path, url: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = Store(url or str(folder / "store"))
        self.page = folder / "pages.warc"
        self.page.write_text("a page")
        sha256 = unit(self.store, folder, "pages.warc", "a page").sha256
        source = Source(uri=str(self.page), name="pages.warc", size=6, identity=f"sha256:{sha256}")
        self.pairs = self._publish(
            "pairs", {"kept": artifact("pair_table", self.unit("pairs.parquet", "pairs", 7))},
            sources=(source,), counts={"pages": 1, "pairs/alt": 7},
        )  # fmt: skip
        images = artifact("image_shards", self.unit("0.tar", "A", 3), self.unit("1.tar", "B", 2))
        drops = artifact("drop_table", self.unit("drops.parquet", "drops", 2))
        self.images = self._publish(
            "images", {"images": images, "drops": drops}, {"pairs": self.pairs}
        )
        self.series = [
            {"name": "loss", "value": 1.0 / (step + 1), "step": step} for step in range(0, 50, 10)
        ]
        lines = "".join(json.dumps(entry) + "\n" for entry in self.series)
        self.prior = self._publish(
            "prior", {"output": artifact("prior", self.unit("prior.safetensors", "weights"))},
            {"images": self.images, "pairs": self.pairs},
            side=(self.unit("metrics.jsonl", lines, 5),),
            params={"network": {"layers": 2, "heads": [1, 2]}, "text": "x" * 9000},
        )  # fmt: skip

    @property
    def manifests(self) -> list[Manifest]:
        """All of them, sources first."""
        return [self.pairs, self.images, self.prior]

    def unit(self, name: str, content: str, records: int | None = None) -> Unit:
        """A unit of the store."""
        return unit(self.store, self.folder, name, content, records)

    def blob(self, one: Unit) -> Path:
        """Where the bytes of a unit lie; made writable, so that a test may alter them."""
        path = Path(self.store.path(self.store.blob(one.sha256)))
        path.chmod(0o644)
        return path

    def _publish(self, *args: Any, **changes: Any) -> Manifest:
        return publish(self.store, manifest(*args, **changes))
