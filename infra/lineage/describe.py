"""What MLflow is told of a manifest: parameters, tags, metrics, datasets, within MLflow's limits.

Pure functions. MLflow holds 36 characters of a dataset's digest, so the first 36 of ours go there
and the whole one into a tag. Its own default digests look at 10,000 rows only and are not used.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.base import digest
from schemas.manifest import InputRef, Manifest, Output

KEY_LIMIT = 250  # characters of a parameter's, tag's or metric's name
PARAM_LIMIT = 6000  # characters of a parameter's value
TAG_LIMIT = 8000  # characters of a tag's value
DIGEST_LIMIT = 36  # characters of a dataset's digest

# Tags by which runs and model versions are found again.
PROVENANCE = "tapir.provenance"  # of the manifest that the run made
SAME_AS = "tapir.same_as"  # of the manifest that a cached stage found
MADE_BY = "tapir.made_by"  # the run that made what a cached stage found
CACHED = "tapir.cached"
ORIGINAL = "tapir.mlflow_run"  # the run's id when it ran; after a reindex it has another one
FINGERPRINT = "tapir.fingerprint"
STAGE = "tapir.stage"


def flatten(values: Any, prefix: str = "") -> dict[str, str]:
    """Nested values as texts by dotted name; lists of plain values stay one text.

    `{"a": {"b": 1}, "c": [1, 2]}` becomes `{"a.b": "1", "c": "[1, 2]"}`.
    """
    if isinstance(values, Mapping) and values:
        return _joined(values.items(), prefix)
    if isinstance(values, list | tuple) and any(isinstance(v, dict | list) for v in values):
        return _joined(enumerate(values), prefix)
    return {prefix: values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)}


def _joined(items: Iterable[tuple[Any, Any]], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in items:
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def params(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow takes them: flat, with safe names, and long values cut."""
    flat = flatten(values) if values else {}
    return {safe_key(key): cut(value, PARAM_LIMIT) for key, value in flat.items()}


def safe_key(key: str) -> str:
    """A name that MLflow accepts; names that are too long keep their difference as a hash."""
    # MLflow also wants names to be normal paths: no "//", no leading slash, no "..".
    safe = posixpath.normpath(re.sub(r"[^\w\-./ :]", "_", key)).strip("/. ") or "_"
    safe = safe.replace("..", "_")
    if len(safe) <= KEY_LIMIT:
        return safe
    return f"{safe[: KEY_LIMIT - 13]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters that says if, and of what, it is only the beginning."""
    if len(text) <= limit:
        return text
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    ending = f"… ({len(text)} characters, sha256 {sha256})"
    return text[: limit - len(ending)] + ending


def tags(manifest: Manifest) -> dict[str, str]:
    """Tags of the run that made a manifest; those of its inputs lead on along the chain."""
    run = manifest.run
    found: dict[str, Any] = {
        PROVENANCE: manifest.provenance,
        FINGERPRINT: manifest.fingerprint,
        STAGE: manifest.stage,
        "tapir.pipeline": manifest.pipeline,
        "tapir.task": manifest.identity.task,
        "tapir.code": manifest.identity.code_digest,
        "tapir.git_commit": run.git_commit,
        "mlflow.source.git.commit": run.git_commit,  # MLflow's own pages show this one
        "tapir.git_dirty": None if run.git_dirty is None else str(run.git_dirty).lower(),
        "tapir.lock": run.lock_digest,
        "tapir.prefect_run": run.prefect_run,
        ORIGINAL: None if manifest.accepted else run.mlflow_run,
        "tapir.host": run.machine.get("host"),
        "tapir.accepted": manifest.accepted.because if manifest.accepted else None,
    }
    found |= {f"tapir.input.{name}": ref.provenance for name, ref in manifest.inputs.items()}
    found |= {f"tapir.output.{name}": out.digest for name, out in manifest.outputs.items()}
    return {safe_key(key): cut(str(value), TAG_LIMIT) for key, value in found.items() if value}


def totals(manifest: Manifest) -> dict[str, float]:
    """Numbers of a finished stage that have no course over time."""
    run = manifest.run
    found: dict[str, float] = {
        "seconds": run.ended - run.started,
        "units_made": run.units_made,
        "units_reused": run.units_reused,
    }
    found |= {f"records/{name}": out.artifact().records for name, out in manifest.outputs.items()}
    found |= {f"counts/{name}": count for name, count in manifest.counts.items()}
    return {safe_key(name): float(value) for name, value in found.items()}


def datasets(manifest: Manifest, store_url: str) -> list[dict[str, Any]]:
    """Inputs, sources and outputs of a stage: `name`, `digest`, `source`, `profile`, `tags` each.

    An output and the input that it becomes have one name and digest, so MLflow links them.
    """
    found = [
        _dataset(f"{ref.stage}.{ref.output}", ref.digest, f"input {argument}", ref.provenance)
        | _about(ref, store_url)
        for argument, ref in manifest.inputs.items()
    ]
    if manifest.sources:
        found.append(_sources(manifest))
    found += [
        _dataset(f"{manifest.stage}.{name}", out.digest, f"output {name}", manifest.provenance)
        | _about(out, store_url)
        for name, out in manifest.outputs.items()
    ]
    return found


def _dataset(name: str, whole: str, context: str, provenance: str) -> dict[str, Any]:
    tags = {"mlflow.data.context": context, "tapir.digest": whole, PROVENANCE: provenance}
    return {"name": name, "digest": whole[:DIGEST_LIMIT], "tags": tags}


def _about(part: InputRef | Output, store_url: str) -> dict[str, Any]:
    source = {"store": store_url, "kind": part.kind, "digest": part.digest}
    profile = {}
    if isinstance(part, Output):
        artifact = part.artifact()
        profile = {"units": len(part.units), "records": artifact.records, "bytes": artifact.size}
    return {"source": json.dumps(source), "profile": json.dumps(profile)}


def _sources(manifest: Manifest) -> dict[str, Any]:
    whole = digest(manifest.identity.sources)
    uris = [source.uri for source in manifest.sources[:100]]  # all of them stand in the manifest
    profile = {"files": len(manifest.sources), "bytes": sum(s.size for s in manifest.sources)}
    described = _dataset(f"{manifest.stage}.sources", whole, "sources", manifest.provenance)
    return described | {
        "source": cut(json.dumps({"uris": uris}), 60_000),
        "profile": json.dumps(profile),
    }
