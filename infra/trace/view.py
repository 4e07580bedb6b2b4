"""A chain as text for people, and as plain values for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from infra.lineage.describe import flatten
from infra.trace.chain import Chain, origins, where
from infra.trace.reference import Registered
from schemas.manifest import Manifest, Output

_SHORT = 12  # characters of a digest in the text; JSON has them whole
_WIDTH = 110
_LABEL = 9
_LONGEST = 80  # characters of a value in the text
_SOURCES = 20  # listed in the text


def render(chain: Chain) -> str:
    """The chain as a tree: each result above what it was made from."""
    lines = [chain.reference.text]
    if chain.reference.model is not None:
        lines += [f"  {line}" for line in _model_lines(chain.reference.model)]
    tree = _Tree(chain)
    for place, root in enumerate(chain.reference.manifests, start=1):
        lines += tree.draw(root, "", place == len(chain.reference.manifests))
    return "\n".join(lines)


class _Tree:
    """Draws branches; a manifest that several were made from is described once."""

    def __init__(self, chain: Chain) -> None:
        self._manifests = {manifest.provenance: manifest for manifest in chain.manifests}
        self._broken = chain.broken
        self._drawn: set[str] = set()

    def draw(self, provenance: str, indent: str, is_last: bool, role: str = "") -> Iterator[str]:
        """Lines of a branch."""
        start = f"{indent}{'└─ ' if is_last else '├─ '}{role}"
        manifest = self._manifests.get(provenance)
        if manifest is None:
            problem = self._broken.get(provenance, "missing")
            yield f"{start}manifest {_short(provenance)}: {problem}"
            return
        seen = " (described above)" if provenance in self._drawn else ""
        yield f"{start}{where(manifest)}  {_short(provenance)}{seen}"
        if seen:
            return
        self._drawn.add(provenance)
        yield from self._inside(manifest, indent + ("   " if is_last else "│  "))

    def _inside(self, manifest: Manifest, indent: str) -> Iterator[str]:
        below = origins(manifest)
        rail = indent + ("│  " if below else "   ")
        for line in _described(manifest):
            yield rail + line
        for place, origin in enumerate(below, start=1):
            yield from self.draw(origin, indent, place == len(below), _role(manifest, origin))


def _role(manifest: Manifest, origin: str) -> str:
    names = [name for name, ref in manifest.inputs.items() if ref.provenance == origin]
    return f"{', '.join(names) or 'adopted from'}: "


def _described(manifest: Manifest) -> Iterator[str]:
    run, identity = manifest.run, manifest.identity
    started = datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    host = run.machine.get("host", "an unknown machine")
    made = f"{started} by {identity.task} in {run.ended - run.started:.1f} s on {host}"
    yield from _labelled("made", [made])
    if manifest.accepted is not None:
        yield from _labelled("adopted", [f"because {manifest.accepted.because}"])
    yield from _labelled("gave", [_output(name, out) for name, out in manifest.outputs.items()])
    yield from _labelled("params", _pairs(manifest.params))
    yield from _labelled("counts", _pairs(manifest.counts))
    yield from _labelled("code", [_code(manifest), f"fingerprint {_short(manifest.fingerprint)}"])
    runs = {"mlflow": run.mlflow_run, "prefect": run.prefect_run}
    yield from _labelled("runs", [f"{tool} {one}" for tool, one in runs.items() if one])
    yield from _labelled("sources", _sources(manifest))


def _labelled(label: str, parts: list[str]) -> Iterator[str]:
    """Parts side by side under a label, as many in a line as go in."""
    if not parts:
        return
    # A part stays in one piece: textwrap does not break at spaces of this kind.
    text = "  ".join(part.replace(" ", "\u00a0") for part in parts)
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=label.ljust(_LABEL), subsequent_indent=" " * _LABEL,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    yield from (line.replace("\u00a0", " ") for line in lines)


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_cut(value)}" for name, value in flatten(values).items()] if values else []


def _cut(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _LONGEST else f"{one_line[:_LONGEST]}…"


def _output(name: str, output: Output) -> str:
    artifact = output.artifact()
    records = f"{artifact.records:,} records in " if artifact.records else ""
    files = f"{records}{_several(len(output.units), 'file')}, {_bytes(artifact.size)}"
    return f"{name} ({output.kind} {_short(output.digest)}, {files})"


def _code(manifest: Manifest) -> str:
    commit = manifest.run.git_commit
    changed = " with changes" if manifest.run.git_dirty else ""
    tree = f", commit {commit[:_SHORT]}{changed}" if commit else ""
    modules = _several(len(manifest.identity.code), "module")
    return f"{_short(manifest.identity.code_digest)} ({modules}{tree})"


def _sources(manifest: Manifest) -> list[str]:
    shown = [f"{one.uri} ({_bytes(one.size)})" for one in manifest.sources[:_SOURCES]]
    more = len(manifest.sources) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def _model_lines(model: Registered) -> Iterator[str]:
    registration = model.registration
    aliases = f" ({', '.join(sorted(model.aliases))})" if model.aliases else ""
    yield f"version {model.number} of {registration.name}{aliases}, from {registration.pipeline}"
    evaluator = registration.evaluator
    yield f"measured by {evaluator.name} {_short(evaluator.digest)}"
    yield from _labelled("metrics", [f"{k}={v:.4g}" for k, v in registration.metrics.items()])


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _short(digest: str) -> str:
    return digest[:_SHORT]


def chain_json(chain: Chain) -> dict[str, Any]:
    """The chain as plain values; `chain` lists each manifest before those it was made from."""
    model = chain.reference.model
    return {
        "ref": chain.reference.text,
        "roots": list(chain.reference.manifests),
        "model": _model_json(model) if model is not None else None,
        "chain": [_manifest_json(manifest) for manifest in chain.manifests],
        "broken": chain.broken,
    }


def _model_json(model: Registered) -> dict[str, Any]:
    values = model.registration.model_dump(mode="json")
    return {**values, "version": model.number, "aliases": sorted(model.aliases)}


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    values = manifest.model_dump(mode="json")
    for name, output in manifest.outputs.items():
        artifact = output.artifact()
        values["outputs"][name] |= {"records": artifact.records, "size": artifact.size}
    return {
        **values,
        "provenance": manifest.provenance,
        "code_digest": manifest.identity.code_digest,
        "made_from": origins(manifest),
    }
