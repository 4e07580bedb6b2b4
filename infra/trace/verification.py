"""Whether everything behind a result is as it was made: manifests, units, sources, the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.environment import Environment
from infra.errors import PermanentError
from infra.sources import resolve_sources
from infra.store import Store, hash_file
from infra.trace.chain import Chain, chain, where
from infra.trace.reference import Reference, Registered
from schemas.artifact import Unit
from schemas.manifest import Manifest
from schemas.stage import Source


def verify(store: Store, reference: Reference) -> list[str]:
    """Hash everything behind a reference again; each missing or altered file, in words."""
    found = chain(store, reference)
    problems = [f"manifest {name}: {problem}" for name, problem in found.broken.items()]
    for manifest in found.manifests:
        problems += _check_links(manifest, found)
    problems += _check_units(store, dict(_units(found)))
    problems += _check_sources(found.manifests)
    if reference.model is not None:
        problems += _check_model(store, reference.model)
    return problems


def _check_links(manifest: Manifest, found: Chain) -> Iterator[str]:
    """Whether an artifact's digest fits its units, and an input what the other manifest says."""
    here = where(manifest)
    for name, output in manifest.outputs.items():
        if output.artifact().digest != output.digest:
            yield f"manifest of {here}: its units are not those of output {name}"
    others = {one.provenance: one for one in found.manifests}
    for argument, ref in manifest.inputs.items():
        other = others.get(ref.provenance)
        if other is not None and (
            ref.output not in other.outputs or other.outputs[ref.output].digest != ref.digest
        ):
            yield f"manifest of {here}: input {argument} is not what {where(other)} made"


def _units(found: Chain) -> Iterator[tuple[str, tuple[Unit, str]]]:
    """Each file by the hash of its bytes, with what it is called."""
    for manifest in found.manifests:
        units = [unit for output in manifest.outputs.values() for unit in output.units]
        for unit in (*units, *manifest.side):
            yield unit.sha256, (unit, f"{unit.name} of {where(manifest)}")
    if found.reference.model is not None:
        for path, unit in found.reference.model.registration.files.items():
            yield unit.sha256, (unit, f"{path} of {found.reference.text}")


def _check_units(store: Store, units: dict[str, tuple[Unit, str]]) -> Iterator[str]:
    # Hashing leaves Python's lock, and remote bytes arrive while others are hashed.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        problems = threads.map(store.check, [unit for unit, _ in units.values()])
        for (unit, called), problem in zip(units.values(), problems, strict=True):
            if problem:
                yield f"{called} ({store.blob(unit.sha256)}): {problem}"


def _check_sources(manifests: Iterable[Manifest]) -> Iterator[str]:
    sources = {source: where(one) for one in manifests for source in one.sources}
    for source, reader in sources.items():
        problem = _check_source(source)
        if problem:
            yield f"{source.uri}, a source of {reader}: {problem}"


def _check_source(source: Source) -> str | None:
    if "://" not in source.uri:
        path = Path(source.uri)
        if not path.is_file():
            return "missing"
        same = source.identity == f"sha256:{hash_file(path)[0]}"
    else:
        try:
            now = resolve_sources((source.uri,), Environment(home=Path()))
        except PermanentError:
            return "missing"
        same = [one.identity for one in now] == [source.identity]
    return None if same else f"altered: it is not the one that was read ({source.identity})"


def _check_model(store: Store, model: Registered) -> list[str]:
    from infra.lineage.registry import Registry

    registry = Registry(model.tracking_uri, store)
    name = model.registration.name
    return registry.check(registry.find(f"models:/{name}/{model.number}"))
