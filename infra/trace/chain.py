"""The manifests behind a result, each of which names those that it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from infra.manifests import examine_manifest
from infra.store import Store
from infra.trace.reference import Reference
from schemas.manifest import Manifest


@dataclass(frozen=True)
class Chain:
    """Manifests, each before those it was made from, and those that could not be believed."""

    reference: Reference
    manifests: tuple[Manifest, ...]
    broken: dict[str, str] = field(default_factory=dict)  # provenance digest -> what is wrong


def chain(store: Store, reference: Reference) -> Chain:
    """Everything that a reference was made from, as far as the manifests can be believed."""
    examined = {}
    waiting = list(reference.manifests)
    while waiting:
        provenance = waiting.pop()
        if provenance not in examined:
            manifest, problem = examine_manifest(store, provenance)
            examined[provenance] = (manifest, problem)
            waiting += origins(manifest) if manifest else []
    found = {name: manifest for name, (manifest, _) in examined.items() if manifest}
    broken = {name: problem for name, (_, problem) in examined.items() if problem}
    return Chain(reference, tuple(_ordered(reference.manifests, found)), broken)


def origins(manifest: Manifest) -> list[str]:
    """Provenance digests of what a manifest was made from, each once."""
    found = [ref.provenance for ref in manifest.inputs.values()]
    if manifest.accepted is not None:
        found.append(manifest.accepted.instead_of)
    return list(dict.fromkeys(found))


def _ordered(roots: Iterable[str], manifests: dict[str, Manifest]) -> list[Manifest]:
    """Each before those it was made from (there are no cycles: names are hashes)."""
    finished: dict[str, Manifest] = {}

    def visit(provenance: str) -> None:
        if provenance in manifests and provenance not in finished:
            for origin in reversed(origins(manifests[provenance])):
                visit(origin)
            finished[provenance] = manifests[provenance]

    for root in reversed(list(roots)):
        visit(root)
    return list(reversed(finished.values()))


def where(manifest: Manifest) -> str:
    """PIPELINE/STAGE of a manifest."""
    return f"{manifest.pipeline}/{manifest.stage}"
