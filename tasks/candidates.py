"""Files of drawn pictures: each holds some prompts with all their candidates, and needs no other.

Safetensors with `codes` int32 [P, N, …], `pictures` uint8 [P, N, 3, H, W] and `seeds` int64 [P, N]
of P prompts and N candidates, in the metadata the prompts as JSON. Ranked files hold `scores`
float32 [P, N] too and are sorted by them, best first; the ranker's digest stands in the metadata.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from schemas.artifact import Candidates
from schemas.manifest import Manifest

SAMPLING = "sampling.json"  # in a model's folder: how it was sampled from when it was evaluated
_METADATA = "tapir"  # one entry only: the order of several is not the same in every process


@dataclass(frozen=True)
class Prompt:
    """What is to be drawn, the group that it is counted in ("held_out"), and why it is there."""

    text: str
    group: str = "prompts"
    why: str = ""


@dataclass(frozen=True)
class PromptCandidates:
    """One prompt's candidates: seeds [N], pictures uint8 [N, 3, H, W], scores [N] (or 0)."""

    prompt: Prompt
    seeds: np.ndarray
    pictures: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class CandidateSet:
    """The candidates of some prompts; the shapes are in the module's text."""

    prompts: tuple[Prompt, ...]
    seeds: np.ndarray
    codes: np.ndarray
    pictures: np.ndarray
    scores: np.ndarray | None = None
    ranker: str | None = None  # digest of the ranker that gave the scores

    def __post_init__(self) -> None:
        for name in ("seeds", "codes", "pictures", "scores"):
            array = getattr(self, name)
            if array is not None and array.shape[:2] != (len(self.prompts), self.count):
                raise ValueError(
                    f"{name} {array.shape} are not those of {len(self.prompts)} prompts"
                    f" with {self.count} candidates each"
                )

    @property
    def count(self) -> int:
        """Candidates of each prompt."""
        return int(self.pictures.shape[1])

    def ranked(self, scores: np.ndarray, ranker: str | None = None) -> CandidateSet:
        """The same candidates with scores [P, N], each prompt's best first (ties as they were)."""
        order = np.argsort(-scores, axis=1, kind="stable")

        def sort(values: np.ndarray) -> np.ndarray:
            return np.stack([one[row] for one, row in zip(values, order, strict=True)])

        return replace(
            self, seeds=sort(self.seeds), codes=sort(self.codes),
            pictures=sort(self.pictures), scores=sort(scores.astype(np.float32)), ranker=ranker,
        )  # fmt: skip

    def each(self) -> list[PromptCandidates]:
        """The prompts one by one."""
        scores = self.scores if self.scores is not None else np.zeros(self.seeds.shape, np.float32)
        columns = zip(self.prompts, self.seeds, self.pictures, scores, strict=True)
        return [PromptCandidates(*column) for column in columns]

    def write(self, path: Path) -> None:
        """Write the file; the same candidates give the same bytes."""
        arrays = {"codes": self.codes, "pictures": self.pictures, "seeds": self.seeds}
        if self.scores is not None:
            arrays["scores"] = self.scores
        prompts = [asdict(prompt) for prompt in self.prompts]
        metadata = {_METADATA: json.dumps({"prompts": prompts, "ranker": self.ranker})}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata)


def read_candidates(path: Path) -> CandidateSet:
    """Read one file; its pictures stay on disk until they are looked at.

    Raises:
        ValueError: if it is no file of candidates.
    """
    with safe_open(path, framework="np") as file:
        header = (file.metadata() or {}).get(_METADATA)
        names = set(file.keys())
        if header is None or not {"codes", "pictures", "seeds"} <= names:
            raise ValueError(f"{path.name}: holds {sorted(names)}, which are no candidates")
        arrays = {name: file.get_tensor(name) for name in names - {"pictures"}}
    arrays["pictures"] = _mapped(path, "pictures")
    described = json.loads(header)
    prompts = tuple(Prompt(**one) for one in described["prompts"])
    return CandidateSet(prompts, **arrays, ranker=described["ranker"])


def _mapped(path: Path, name: str) -> np.ndarray:
    """A tensor of bytes of a safetensors file that has been found sound, read where it is used."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        described = json.loads(file.read(length))[name]
    if described["dtype"] != "U8":
        raise ValueError(f"{path.name}: {name} are {described['dtype']}, not bytes")
    start, shape = 8 + length + described["data_offsets"][0], tuple(described["shape"])
    if not math.prod(shape):
        return np.zeros(shape, np.uint8)
    # Copied where it is written to, as no one does; torch warns of arrays that must not be.
    return np.memmap(path, np.uint8, "c", start, shape)


def by_group(sets: Iterable[CandidateSet]) -> dict[str, list[PromptCandidates]]:
    """Each prompt with its own candidates, by group, in the order of the files."""
    groups: dict[str, list[PromptCandidates]] = {}
    for candidates in sets:
        for one in candidates.each():
            groups.setdefault(one.prompt.group, []).append(one)
    return groups


def sampling_of(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """How the candidates in a chain of manifests were drawn; nothing declared if there are none.

    A model is used as it was evaluated: another temperature or guidance is another model.
    """
    for manifest in manifests:
        if any(output.kind == Candidates.kind for output in manifest.outputs.values()):
            return dict(manifest.params["sampling"])
    return {}
