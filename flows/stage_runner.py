"""Run one stage: fingerprint, look up, else make under a lease, verify, publish.

Our store is the only cache. The manifest is published last and only if none is there, so that two
attempts that end together leave one answer; what an attempt leaves unfinished, the next resumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.declaration import BoundStage
from infra.attempt import Attempt
from infra.disk import explaining_full_disk
from infra.environment import Environment
from infra.errors import DamagedUnit, LeaseHeld, PermanentError
from infra.manifests import METRICS, read_manifest
from infra.provenance import git_state, lock_digest, machine
from infra.sources import resolve_sources
from infra.store import Store
from infra.work import Event, Work
from schemas.base import canonical
from schemas.fingerprint import code_digests, versions_of
from schemas.manifest import Identity, InputRef, Manifest, Output, Run
from schemas.stage import Source

_POLL = 1.0  # seconds between looks at a lease that somebody else holds
_SCRATCH = "scratch-"

Inputs = Mapping[str, InputRef]
Listener = Callable[[Event], None]


@dataclass(frozen=True)
class RunIds:
    """Runs elsewhere that a manifest names."""

    prefect: str | None = None
    mlflow: str | None = None


def identify(stage: BoundStage, inputs: Inputs, sources: tuple[Source, ...]) -> Identity:
    """What the fingerprint of a stage is made of."""
    modules = [stage.spec.module, *stage.params.modules()]
    return Identity(
        task=stage.spec.name,
        params=json.loads(canonical(stage.params.identity())),
        inputs={argument: ref.digest for argument, ref in inputs.items()},
        sources=tuple((source.name, source.size, source.identity) for source in sources),
        versions=versions_of(stage.spec.versions),
        code=code_digests(modules),
    )


def completed(store: Store, fingerprint: str) -> Manifest | None:
    """The published manifest of a fingerprint, if all its units are there (sizes checked)."""
    pointer = store.read(f"fingerprints/{fingerprint}")
    manifest = pointer and read_manifest(store, pointer["provenance"])
    if not manifest:
        return None
    units = [unit for output in manifest.outputs.values() for unit in output.units]
    return manifest if all(store.has(unit) for unit in [*units, *manifest.side]) else None


def references(manifest: Manifest) -> dict[str, InputRef]:
    """References to the outputs of a manifest, by output name."""
    return {
        name: InputRef(
            stage=manifest.stage, output=name, kind=output.kind,
            digest=output.digest, provenance=manifest.provenance,
        )
        for name, output in manifest.outputs.items()
    }  # fmt: skip


class StageRunner:
    """Runs the stages of one pipeline on one store."""

    def __init__(self, pipeline: str, store: Store, environment: Environment) -> None:
        self.pipeline = pipeline
        self.store = store
        self.environment = environment
        self._sources: dict[str, tuple[Source, ...]] = {}

    def sources(self, stage: BoundStage) -> tuple[Source, ...]:
        """The stage's sources, resolved once a run, so that all of it sees the same files."""
        if stage.name not in self._sources:
            declared = stage.params.sources()
            try:
                self._sources[stage.name] = resolve_sources(declared, self.environment)
            except PermanentError as error:
                raise PermanentError(f"stage {stage.name}: {error}") from error
        return self._sources[stage.name]

    def find(self, stage: BoundStage, inputs: Inputs) -> tuple[Identity, Manifest | None]:
        """What a stage would be known by, and its manifest if it is made already."""
        identity = self.identify(stage, inputs)
        return identity, completed(self.store, identity.fingerprint)

    def identify(self, stage: BoundStage, inputs: Inputs) -> Identity:
        """What a stage's fingerprint is made of."""
        return identify(stage, inputs, self.sources(stage))

    def make(
        self, stage: BoundStage, inputs: Inputs, identity: Identity, ids: RunIds, listen: Listener
    ) -> Manifest:
        """Make a stage's outputs and publish them; what another attempt published meanwhile counts.

        Raises:
            DamagedUnit: if a unit of an input is missing or altered; it is discarded then.
            DiskFull: if there is no room for what it makes.
        """
        with self._explaining_full_disk():
            attempt = self._attempt(identity.fingerprint, listen)
        if isinstance(attempt, Manifest):
            self.adopt(stage, attempt)
            return attempt
        try:
            with self._explaining_full_disk():
                manifest = self._make(attempt, stage, inputs, identity, ids, listen)
        except BaseException as error:
            attempt.close()
            if isinstance(error, DamagedUnit):
                self.store.discard(error.sha256)
            raise
        attempt.finish()
        return manifest

    def perform(
        self, stage: BoundStage, inputs: Inputs, identity: Identity, listen: Listener
    ) -> None:
        """Run an effect; it is idempotent by contract and never cached."""
        folder = self.environment.home / "effects" / identity.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        clear_scratch(folder)
        prefix = f"{_SCRATCH}{os.getpid()}-"  # two may run at a time, and either may be killed
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
            work = Work(
                self.store, self.environment, Path(scratch), folder / "state",
                identity.code_digest, self.sources(stage), inputs, listen,
            )  # fmt: skip
            stage.spec.function(**self._artifacts(inputs), params=stage.params, work=work)

    def _attempt(self, fingerprint: str, listen: Listener) -> Attempt | Manifest:
        """An attempt of our own, or what the one that we waited for has published."""
        said = False
        while True:
            manifest = completed(self.store, fingerprint)
            if manifest:
                return manifest
            try:
                return Attempt(self.store, self.environment, fingerprint)
            except LeaseHeld as error:
                if not said:
                    listen(Event("message", {"text": f"waiting: {error}"}))
                said = True
                time.sleep(_POLL)

    def _work(
        self, attempt: Attempt, stage: BoundStage, inputs: Inputs, identity: Identity,
        listen: Listener,
    ) -> Work:  # fmt: skip
        return Work(
            self.store, self.environment, attempt.scratch, attempt.state, identity.code_digest,
            self.sources(stage), inputs, listen, attempt.lease.check, attempt.save,
        )  # fmt: skip

    def _artifacts(self, inputs: Inputs) -> dict[str, Any]:
        artifacts = {}
        for argument, ref in inputs.items():
            manifest = read_manifest(self.store, ref.provenance)
            if manifest is None:
                raise PermanentError(f"the manifest {ref.provenance[:12]}… of {ref.stage} is gone")
            artifacts[argument] = manifest.outputs[ref.output].artifact()
        return artifacts

    def _explaining_full_disk(self) -> contextlib.AbstractContextManager[None]:
        return explaining_full_disk(*self.store.local_folders(), self.environment.home)

    def _make(
        self, attempt: Attempt, stage: BoundStage, inputs: Inputs, identity: Identity,
        ids: RunIds, listen: Listener,
    ) -> Manifest:  # fmt: skip
        work = self._work(attempt, stage, inputs, identity, listen)
        manifest = self._made(attempt, work, stage, inputs, identity, ids)
        attempt.lease.check()
        return self.publish(stage, manifest)

    def _made(
        self, attempt: Attempt, work: Work, stage: BoundStage, inputs: Inputs,
        identity: Identity, ids: RunIds,
    ) -> Manifest:  # fmt: skip
        started = time.time()
        result = stage.spec.function(**self._artifacts(inputs), params=stage.params, work=work)
        outputs = {name: Output.of(a) for name, a in stage.spec.gather(result).items()}
        self._verify(outputs)
        _keep_metrics(work)
        commit, dirty = git_state()
        return Manifest(
            pipeline=self.pipeline, stage=stage.name, fingerprint=identity.fingerprint,
            identity=identity, params=json.loads(canonical(stage.params)), outputs=outputs,
            inputs=dict(inputs), sources=self.sources(stage), counts=dict(work.counts),
            side=tuple(work.side),
            run=Run(
                started=started, ended=time.time(), machine=machine(), git_commit=commit,
                git_dirty=dirty, lock_digest=lock_digest(), prefect_run=ids.prefect,
                mlflow_run=ids.mlflow, epoch=attempt.lease.epoch,
                units_made=work.made, units_reused=work.reused,
            ),
        )  # fmt: skip

    def _verify(self, outputs: Mapping[str, Output]) -> None:
        for output in outputs.values():
            for unit in output.units:
                if not self.store.has(unit):
                    raise DamagedUnit(unit.sha256, unit.name, "missing right after it was made")

    def publish(self, stage: BoundStage, manifest: Manifest) -> Manifest:
        """Publish a manifest unless one is there for its fingerprint; the one that counts."""
        store, pointer = self.store, f"fingerprints/{manifest.fingerprint}"
        provenance = manifest.provenance
        store.write(f"manifests/{provenance}.json", manifest.model_dump(mode="json"))
        if not store.create(pointer, {"provenance": provenance}):
            other = completed(store, manifest.fingerprint)
            if other is None:  # it points to units that are damaged: ours take its place
                store.write(pointer, {"provenance": provenance})
            manifest = other or manifest
        self.point(stage, manifest)
        return manifest

    def adopt(self, stage: BoundStage, manifest: Manifest) -> None:
        """Take what the store has for a stage, and clear what a killed attempt left beside it."""
        self.point(stage, manifest)
        if manifest.fingerprint in self.store.names("partial"):  # were it but an empty folder
            with contextlib.suppress(LeaseHeld):
                Attempt(self.store, self.environment, manifest.fingerprint).finish()

    def point(self, stage: BoundStage, manifest: Manifest) -> None:
        """Say that this is what the pipeline's stage has now (`PIPELINE/STAGE`)."""
        entry, value = f"pipelines/{self.pipeline}/{stage.name}.json", manifest.provenance
        before = (self.store.read(entry) or {}).get("provenance")
        if before != value:
            earlier = {"previous": before} if before else {}
            self.store.write(entry, {"provenance": value, **earlier})


def _keep_metrics(work: Work) -> None:
    entries = work.metrics()
    if entries:
        path = work.scratch / METRICS
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        work.add_side(path, METRICS, len(entries))


def clear_scratch(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for left in folder.glob(f"{_SCRATCH}*"):
        owner = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
