"""The manifest: how outputs were made, chained by digests from a model back to its sources.

It is written last, so it is also the mark of completion. Its name is its provenance digest, the
sha256 of its canonical text; each input names the provenance digest of the manifest it came from.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.artifact import Artifact, Sha256, Unit, kinds
from schemas.base import Frozen, digest
from schemas.stage import Source

SCHEMA_VERSION = 1


class Output(Frozen):
    """One named output of a stage: an artifact with its content digest."""

    kind: str
    digest: Sha256
    units: tuple[Unit, ...]

    @classmethod
    def of(cls, artifact: Artifact) -> Output:
        """The record of an artifact."""
        return cls(kind=artifact.kind, digest=artifact.digest, units=artifact.units)

    def artifact(self) -> Artifact:
        """The artifact itself, of its own class."""
        return kinds()[self.kind](units=self.units)


class InputRef(Frozen):
    """An input: which output of which stage, by content and by provenance."""

    stage: str
    output: str
    kind: str
    digest: Sha256
    provenance: Sha256


class Run(Frozen):
    """The attempt that made the outputs; differs from run to run by nature."""

    started: float
    ended: float
    machine: dict[str, Any]
    git_commit: str | None = None
    git_dirty: bool | None = None
    lock_digest: str | None = None
    prefect_run: str | None = None
    mlflow_run: str | None = None
    epoch: int = 1
    units_made: int = 0
    units_reused: int = 0


class Accepted(Frozen):
    """Says that a person adopted an artifact under a new fingerprint, and why."""

    because: str
    instead_of: Sha256  # provenance digest of the manifest whose outputs were adopted


class Identity(Frozen):
    """What a fingerprint is made of, kept so that a plan can say which part changed."""

    task: str
    params: dict[str, Any]
    inputs: dict[str, Sha256]  # argument -> content digest
    sources: tuple[tuple[str, int, str], ...]  # name, size, identity
    versions: dict[str, str]
    code: dict[str, Sha256]  # module -> digest of its source without comments and docstrings

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical text of all of it."""
        return digest(self)

    @property
    def code_digest(self) -> str:
        """sha256 over code and versions: what a finished unit's key is made with."""
        return digest({"code": self.code, "versions": self.versions})


class Manifest(Frozen):
    """The record of one finished stage."""

    schema_version: int = SCHEMA_VERSION
    pipeline: str
    stage: str
    fingerprint: Sha256
    identity: Identity
    params: dict[str, Any]  # all of them, the operational ones too
    outputs: dict[str, Output]
    inputs: dict[str, InputRef]
    sources: tuple[Source, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    side: tuple[Unit, ...] = ()
    run: Run
    accepted: Accepted | None = None

    @property
    def provenance(self) -> str:
        """The provenance digest: sha256 of the canonical text of the whole manifest."""
        return digest(self)
