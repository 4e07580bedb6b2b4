"""The registry of models: versions, and the aliases `candidate` and `champion`.

What a registration did is written to the store before MLflow hears of it, with every file of the
model as a unit, so that it is done once, is finished by whoever comes next after a crash, and comes
back when the database is lost.

    effects/<name>/<chain>.json         one version (`infra.lineage.registration`)
    effects/<name>/numbers/<chain>.json the number that MLflow gave it
    effects/<name>/champions/<n>.json   tickets: of all who replace a champion, one gets the next
    effects/<name>/aliases.json         where the aliases were put when they were last moved here
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PermanentError
from infra.lease import Lease
from infra.lineage.client import open_client
from infra.lineage.registration import (
    CHAIN,
    EVALUATOR,
    FILES,
    MODEL,
    Gate,
    Registration,
    chain_digest,
    files_digest,
    measured,
)
from infra.lineage.runs import Runs
from infra.manifests import read_manifest
from infra.store import Store, hash_file
from schemas.artifact import Unit
from schemas.manifest import InputRef

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE = "candidate"
CHAMPION = "champion"


@dataclass(frozen=True)
class Verdict:
    """Whether a version is champion now, and why (not)."""

    champion: bool
    because: str


class Registry:
    """Model versions and aliases on one tracking server, recorded in one store."""

    def __init__(self, tracking_uri: str, store: Store) -> None:
        self._uri = tracking_uri
        self._store = store
        self._client = open_client(tracking_uri)
        self._runs = Runs(tracking_uri, store)

    # What stages do

    def recorded(self, name: str, made_of: Mapping[str, InputRef]) -> Registration | None:
        """The registration of this chain, if it was begun before."""
        found = self._store.read(_entry(name, chain_digest(made_of)))
        return Registration.model_validate(found) if found is not None else None

    def register(self, registration: Registration) -> int:
        """Make the version unless it is there, and name it candidate; its number.

        Raises:
            LeaseHeld: if another process is at it.
        """
        entry = _entry(registration.name, registration.chain)
        lease = Lease.take(self._store, f"register-{registration.chain}")
        try:
            if not self._store.create(entry, registration.model_dump(mode="json")):
                registration = Registration.model_validate(self._store.read(entry))
            version = self._ensure(registration)
            self._move(CANDIDATE, registration, version)
        finally:
            lease.release()
            self._store.delete(lease.folder)
        return version

    def promote(self, registration: Registration, gate: Gate) -> Verdict:
        """Make a registered version champion if the gate holds.

        It is judged against the champion that is there, and again if another one has come
        meanwhile: from us (only one gets the next ticket) or from a person (the alias is read
        again right before it is moved).

        Raises:
            PermanentError: if the gate's metric was not measured.
        """
        name, version = registration.name, self._ensure(registration)
        while True:
            present = self.aliased(name, CHAMPION)
            verdict = self._judge(registration, gate, present)
            if not verdict.champion or _number(present) == version:
                return verdict
            if not self._take_ticket(registration, verdict):
                continue
            if _number(self.aliased(name, CHAMPION)) == _number(present):
                self._move(CHAMPION, registration, version)
                return verdict

    def restore(self) -> int:
        """Bring back recorded versions and aliases that MLflow has lost; how many are recorded."""
        count = 0
        for name in self._store.names("effects"):
            registrations = self._registrations(name)
            for one in registrations:
                self._ensure(one)
            chains = self._store.read(f"effects/{name}/aliases.json") or {}
            for one in registrations:
                for alias in (a for a, chain in chains.items() if chain == one.chain):
                    if self.aliased(name, alias) is None:  # a person may have moved it since
                        self._client.set_registered_model_alias(name, alias, str(self._ensure(one)))
            count += len(registrations)
        return count

    # What readers ask

    def aliased(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names; None if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def find(self, reference: str) -> ModelVersion:
        """The version that `models:/NAME@ALIAS` or `models:/NAME/NUMBER` names.

        Raises:
            PermanentError: if there is none, saying what there is.
        """
        name, alias, number = _parse(reference)
        versions = self._versions(name)
        if alias:
            found = self.aliased(name, alias)
        else:
            found = next((one for one in versions if str(one.version) == number), None)
        if found is None:
            raise PermanentError(f"{reference}: there is no such model; {self._offer(name)}")
        return found

    def registration(self, version: ModelVersion) -> Registration:
        """The record of a version.

        Raises:
            PermanentError: if Tapir did not register it into this store.
        """
        chain = version.tags.get(CHAIN, "")
        found = self._store.read(_entry(version.name, chain)) if chain else None
        if found is None:
            raise PermanentError(
                f"{_called(version)} is not recorded in this store, so nothing is known of how it"
                " was made"
            )
        return Registration.model_validate(found)

    def rival(self, name: str, made_of: Mapping[str, InputRef]) -> Registration | None:
        """The champion, or the last one before it, that is another model than what is given.

        Raises:
            PermanentError: if the champion was not registered into this store.
        """
        champion = self.aliased(name, CHAMPION)
        if champion is None:
            return None
        folder = f"effects/{name}/champions"
        tickets = (self._store.read(f"{folder}/{one}") for one in self._store.names(folder)[::-1])
        entries = (self._store.read(_entry(name, one["chain"])) for one in tickets if one)
        earlier = (Registration.model_validate(one) for one in entries)
        for found in itertools.chain([self.registration(champion)], earlier):
            if any(made_of[part].digest != found.made_of[part].digest for part in found.drawn_by):
                return found
        return None

    @contextlib.contextmanager
    def folder(self, version: ModelVersion) -> Iterator[Path]:
        """A local folder with the files of a version: the registry's own where that is local.

        Raises:
            PermanentError: if the registry has lost them.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        repository = get_artifact_repository(str(version.source), tracking_uri=self._uri)
        is_local = isinstance(repository, LocalArtifactRepository)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                found = repository.download_artifacts("", None if is_local else temporary)
            except (OSError, MlflowException) as error:
                raise PermanentError(f"the files of {_called(version)} are not there") from error
            yield Path(found)

    def check(self, version: ModelVersion) -> list[str]:
        """Hash the files of a version where the registry keeps them; the problems in words."""
        registration = self.registration(version)
        problems = []
        if version.tags.get(FILES) != files_digest(registration.files):
            problems.append(f"{_called(version)}: its tag {FILES} does not fit its recorded files")
        try:
            with self.folder(version) as folder:
                for path, unit in registration.files.items():
                    problem = _compare(folder / path, unit)
                    if problem:
                        where = f"{version.source}/{path}"
                        problems.append(f"{path} of {_called(version)} ({where}): {problem}")
        except PermanentError as error:
            problems.append(str(error))
        return problems

    # How

    def _judge(
        self, registration: Registration, gate: Gate, champion: ModelVersion | None
    ) -> Verdict:
        value = registration.metrics.get(gate.metric)
        if value is None:
            known = ", ".join(sorted(registration.metrics)) or "none"
            raise PermanentError(f"metric: no {gate.metric!r} was measured; there are: {known}")
        said = f"{gate.metric} {value:.4g}"
        if not gate.meets_bound(value):
            return Verdict(False, f"{said} is not up to the bound {gate.bound:.4g}")
        if champion is None:
            return Verdict(True, f"{said} meets the bound {gate.bound:.4g}; there was no champion")
        if champion.tags.get(CHAIN) == registration.chain:
            return Verdict(True, f"{said}; it is the champion already")
        other = self._measure(champion, registration.evaluator.digest, gate.metric)
        if other is None:
            return Verdict(
                False,
                f"{said} cannot be compared: the champion, {_called(champion)}, was not measured by"
                f" this evaluator ({registration.evaluator.name}); register it again with an"
                " evaluation by it, or move the alias by hand",
            )
        if not gate.beats(value, other):
            return Verdict(False, f"{said} is no better than {other:.4g} of {_called(champion)}")
        return Verdict(True, f"{said} is better than {other:.4g} of {_called(champion)}")

    def _measure(self, champion: ModelVersion, evaluator: str, metric: str) -> float | None:
        """What an evaluator measured of a champion, in whichever version of the same contents."""
        for one in [champion, *self._versions(champion.name)]:
            same = one.tags.get(MODEL) == champion.tags.get(MODEL)
            if same and one.tags.get(EVALUATOR) == evaluator:
                return measured(one.tags, metric)
        return None

    def _take_ticket(self, registration: Registration, verdict: Verdict) -> bool:
        folder = f"effects/{registration.name}/champions"
        number = len(self._store.names(folder)) + 1
        ticket = {"chain": registration.chain, "because": verdict.because, "at": time.time()}
        return self._store.create(f"{folder}/{number:06d}.json", ticket)

    def _ensure(self, registration: Registration) -> int:
        """The number of the version, which is made, files and all, if it is not there."""
        name, chain = registration.name, registration.chain
        for version in self._versions(name):
            if version.tags.get(CHAIN) == chain:
                self._ensure_files(registration, str(version.run_id))
                return int(version.version)
        run = self._trained_by(registration)
        self._ensure_files(registration, run)
        root = self._client.get_run(run).info.artifact_uri
        self._ensure_name(name)
        made = self._client.create_model_version(
            name, f"{root}/{_path(registration)}", run, dict(registration.tags)
        )
        self._store.write(f"effects/{name}/numbers/{chain}.json", int(made.version))
        return int(made.version)

    def _ensure_files(self, registration: Registration, run: str) -> None:
        path = _path(registration)
        if self._client.list_artifacts(run, path):
            return
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            for relative, unit in registration.files.items():
                target = model / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                self._store.fetch(unit, Path(folder) / "fetched").rename(target)
            self._client.log_artifacts(run, str(model), path)

    def _ensure_name(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _trained_by(self, registration: Registration) -> str:
        """The run that trained what draws; the version names it as its source."""
        ref = registration.made_of[registration.drawn_by[0]]
        manifest = read_manifest(self._store, ref.provenance)
        if manifest is None:
            raise PermanentError(f"the manifest {ref.provenance} of {ref.stage} is gone or altered")
        return self._runs.index(manifest)

    def _move(self, alias: str, registration: Registration, version: int) -> None:
        name = registration.name
        self._client.set_registered_model_alias(name, alias, str(version))
        entry = f"effects/{name}/aliases.json"
        self._store.write(entry, {**(self._store.read(entry) or {}), alias: registration.chain})

    def _versions(self, name: str) -> list[ModelVersion]:
        return list(self._client.search_model_versions(f"name = '{name}'", max_results=10_000))

    def _registrations(self, name: str) -> list[Registration]:
        """All registrations of a name, in the order in which they got their numbers."""
        entries = [one for one in self._store.names(f"effects/{name}") if len(one) == 64 + 5]
        read = (self._store.read(f"effects/{name}/{entry}") for entry in entries)
        found = [Registration.model_validate(one) for one in read]

        def order(one: Registration) -> tuple[float, float]:
            number = self._store.read(f"effects/{name}/numbers/{one.chain}.json")
            return (float("inf") if number is None else number, one.created)

        return sorted(found, key=order)

    def _offer(self, name: str) -> str:
        versions = sorted(int(one.version) for one in self._versions(name))
        if versions:
            return f"versions of {name} are {versions}"
        names = [model.name for model in self._client.search_registered_models()]
        return f"registered are: {', '.join(names) or 'none'}"


def _parse(reference: str) -> tuple[str, str, str]:
    """Name, alias and number of a reference; alias or number is empty."""
    name, at, alias = reference.removeprefix("models:/").partition("@")
    name, slash, number = name.partition("/")
    if not name or (at and (slash or not alias)) or (not at and not number.isdigit()):
        raise PermanentError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    return name, alias, number


def _entry(name: str, chain: str) -> str:
    return f"effects/{name}/{chain}.json"


def _path(registration: Registration) -> str:
    return f"registered/{registration.name}-{registration.chain[:16]}"


def _number(version: ModelVersion | None) -> int | None:
    return None if version is None else int(version.version)


def _called(version: ModelVersion) -> str:
    return f"version {version.version} of {version.name}"


def _compare(path: Path, unit: Unit) -> str | None:
    if not path.is_file():
        return "missing"
    return None if hash_file(path)[0] == unit.sha256 else "altered"
