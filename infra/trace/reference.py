"""What a person may write to name a result.

A content digest of an artifact (or the sha256 of one of its files), the digest of a manifest,
PIPELINE/STAGE, or a version of a registered model: models:/NAME@ALIAS, models:/NAME/VERSION.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.errors import PermanentError
from infra.lineage.registration import Registration
from infra.manifests import read_manifest
from infra.store import Store
from schemas.manifest import Manifest
from schemas.pipeline import nearest

_SHORTEST = 8  # characters of a digest's beginning
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    tracking_uri: str
    number: int
    aliases: tuple[str, ...]
    registration: Registration


@dataclass(frozen=True)
class Reference:
    """What a text refers to: a manifest, or those that a model version was made from."""

    text: str
    manifests: tuple[str, ...]
    model: Registered | None = None


def resolve(store: Store, text: str, tracking_uri: str) -> Reference:
    """Find what a text refers to.

    Raises:
        PermanentError: if there is nothing of the kind, or more than one thing.
    """
    if text.startswith("models:/"):
        return _resolve_model(store, text, tracking_uri)
    if "/" in text:
        return Reference(text, (_resolve_stage(store, text),))
    return Reference(text, (_resolve_digest(store, text),))


def _resolve_model(store: Store, text: str, tracking_uri: str) -> Reference:
    from infra.lineage.registry import Registry  # opens MLflow, which takes two seconds

    registry = Registry(tracking_uri, store)
    version = registry.find(text)
    registration = registry.registration(version)
    model = Registered(tracking_uri, int(version.version), tuple(version.aliases), registration)
    manifests = dict.fromkeys(ref.provenance for ref in registration.made_of.values())
    return Reference(text, tuple(manifests), model)


def _resolve_stage(store: Store, text: str) -> str:
    pipeline, _, stage = text.partition("/")
    pointer = store.read(f"pipelines/{pipeline}/{stage}.json") if stage else None
    if pointer is not None:
        return str(pointer["provenance"])
    stages = [name.removesuffix(".json") for name in store.names(f"pipelines/{pipeline}")]
    if stages:
        raise PermanentError(f"{text}: this stage is not made; {nearest(stage, stages)}")
    known = nearest(pipeline, store.names("pipelines"))
    raise PermanentError(f"{text}: there is no pipeline {pipeline} in this store; {known}")


def _resolve_digest(store: Store, text: str) -> str:
    if not _SHORTEST <= len(text) <= 64 or not set(text) <= _HEX:
        raise PermanentError(
            f"{text}: write a digest (at least its first {_SHORTEST} hex digits), PIPELINE/STAGE,"
            " or models:/NAME@ALIAS"
        )
    names = [name.removesuffix(".json") for name in store.names("manifests")]
    manifests = [name for name in names if name.startswith(text)]
    if manifests:
        return _only(text, manifests)
    made: dict[str, list[Manifest]] = {}  # content digest or sha256 -> those that made it
    for manifest in filter(None, (read_manifest(store, name) for name in names)):
        for digest in _contents(manifest):
            if digest.startswith(text):
                made.setdefault(digest, []).append(manifest)
    if not made:
        raise PermanentError(f"{text}: no artifact, file or manifest of this store begins so")
    # The same bytes may have been made more than once; the latest is what pipelines use.
    return max(made[_only(text, list(made))], key=lambda one: one.run.ended).provenance


def _contents(manifest: Manifest) -> Iterator[str]:
    for output in manifest.outputs.values():
        yield output.digest
        yield from (unit.sha256 for unit in output.units)


def _only(text: str, found: list[str]) -> str:
    if len(found) > 1:
        some = ", ".join(one[: len(text) + 8] for one in sorted(found)[:5])
        raise PermanentError(f"{text}: {len(found)} digests begin so ({some}…); write more of it")
    return found[0]
