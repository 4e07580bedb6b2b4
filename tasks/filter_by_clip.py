"""Drop pairs by what a contrastive model (CLIP) sees: captions that do not fit, watermarks, NSFW.

Every shard is scored once; the cut is made from the scores, so that to move a threshold scores
nothing anew. A classifier is a linear head over the features of a picture, from a file, or prompts
for what is unwanted and wanted. Scores are an output. Filters are asked in the declared order; a
dry run drops nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from infra.errors import PermanentError
from infra.shards import read_shard
from infra.tables import TableWriter, read_columns, write_table
from infra.work import ShardWork, Work
from schemas.artifact import DropTable, Findings, ImageShards, Ranker, TextTokenizer, Unit
from schemas.base import Frozen
from schemas.records import FINDING_SCHEMA, DropReason
from schemas.stage import Source, stage
from tasks.dedup.rewriting import plan, rewrite
from tasks.devices import steady_threads
from tasks.embedding import Encoder, batches
from tasks.funnel import tally
from tasks.lexicon.lists import pinned_sources
from tasks.networks import NetworkParams

STAGE = "filter_by_clip"
_DIGITS = 5  # of scores: what other sums of the same numbers may change is beyond them


class Similarity(Frozen):
    """How well picture and caption must fit: the least cosine, or the share of pairs that stays."""

    min: float | None = Field(default=None, ge=-1, le=1)
    keep: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.min is None) == (self.keep is None):
            raise ValueError("give either min (a cosine) or keep (a share of the pairs)")
        return self


class Classifier(Frozen):
    """A probability over the picture's features, and the most that is allowed.

    Attributes:
        head: a path or URL of safetensors with `weight` [D] and `bias` [], for a sigmoid.
        unwanted, wanted: prompts; the probability is the share of the unwanted ones in a softmax.
    """

    head: str | None = None
    unwanted: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    max: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _head_or_prompts(self) -> Self:
        prompts = bool(self.unwanted) and bool(self.wanted)
        if (self.head is None) != prompts or bool(self.unwanted) != bool(self.wanted):
            raise ValueError("give either head (a file), or prompts: both unwanted and wanted")
        return self


class Criterion(Frozen):
    """One filter by its name."""

    similarity: Similarity | None = None
    watermark: Classifier | None = None
    nsfw: Classifier | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("write one filter each: {similarity: …}, {watermark: …} or {nsfw: …}")
        return self

    @property
    def name(self) -> str:
        """Which of them it is."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def classifier(self) -> Classifier | None:
        """The classifier, if it is one."""
        return self.watermark or self.nsfw

    @property
    def reason(self) -> DropReason:
        """Why pairs beyond its bound are dropped."""
        return DropReason(self.name) if self.classifier else DropReason.LOW_SIMILARITY


class FilterByClipParams(NetworkParams):
    """Which filters, in which order.

    Attributes:
        filters: `{similarity: …}`, `{watermark: …}`, `{nsfw: …}`.
        dry_run: keep every pair, and write down each score and what would be dropped.
    """

    networks: tuple[str, ...] = ("clip",)
    filters: tuple[Criterion, ...] = Field(min_length=1)
    dry_run: bool = False

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [one.name for one in self.filters]
        if len(set(names)) < len(names):
            raise ValueError(f"filters: each at most once, not {', '.join(names)}")
        return self

    def sources(self) -> tuple[str, ...]:
        """The heads of classifiers."""
        heads = [one.classifier.head for one in self.filters if one.classifier]
        return tuple(dict.fromkeys(head for head in heads if head))


class Scored(NamedTuple):
    """The pairs that every filter accepts, the others, and all scores."""

    kept: ImageShards
    drops: DropTable
    scores: Findings


class Cut(NamedTuple):
    """What a filter wants: its place in the declaration, and the bound in numbers."""

    name: str
    reason: DropReason
    bound: float

    def objects(self, values: np.ndarray) -> np.ndarray:
        """Which values are beyond the bound, bool."""
        low = self.reason is DropReason.LOW_SIMILARITY
        return np.asarray(values < self.bound if low else values > self.bound)

    def detail(self, value: float) -> str:
        """The value, for a person."""
        return f"{self.name} {value:.3f}, bound {self.bound:.3f}"


@stage(
    retries=2, cores=2, memory_gb=2.0, versions=("torch", "pillow", "tokenizers", "open-clip-torch")
)
def filter_by_clip(
    images: ImageShards, ranker: Ranker, params: FilterByClipParams, work: Work,
    text_tokenizer: TextTokenizer | None = None,
) -> Scored:  # fmt: skip
    """Keep the pairs whose scores are within every bound."""
    params.check(work.fetch(ranker.units[0]))
    mapped = work.map(
        score_shard, images.units, ranker=ranker.units[0], filters=_questions(params, work),
        tokenizer=text_tokenizer.units[0] if text_tokenizer else None,
    )  # fmt: skip
    scores = mapped.units("scores")
    names = [one.name for one in params.filters]
    values = np.concatenate([np.zeros((0, len(names))), *(_values(u, names, work) for u in scores)])
    cuts = _cuts(params.filters, values)
    if params.dry_run:
        told = tuple(_tell(unit, cuts, work) for unit in scores)
        found = Scored(images, DropTable(), Findings(units=told))
    else:
        plans = [
            plan(unit, _dropped(score, cuts, work), work)
            for unit, score in zip(images.units, scores, strict=True)
        ]
        found = Scored(*rewrite(images.units, plans, STAGE, work), Findings(units=scores))
    tally(STAGE, found.kept, found.drops, work)
    return found


def _questions(params: FilterByClipParams, work: Work) -> list[dict[str, Any]]:
    """What each filter asks of a picture: its name, and where a classifier's answer is from."""
    asked = []
    for one in params.filters:
        classifier = one.classifier
        head = pinned_sources((classifier.head,), work) if classifier and classifier.head else []
        asked.append(
            {
                "name": one.name,
                "head": head[0] if head else None,
                "unwanted": classifier.unwanted if classifier else (),
                "wanted": classifier.wanted if classifier else (),
            }
        )
    return asked


def score_shard(
    unit: Unit, shard: ShardWork, *, ranker: Unit, tokenizer: Unit | None,
    filters: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Score the pairs of one shard, in its order."""
    path = shard.scratch / f"scores-{unit.name}.parquet"
    with steady_threads(), TableWriter(path, FINDING_SCHEMA) as table:
        encoder = Encoder(shard.fetch(ranker), shard.fetch(tokenizer) if tokenizer else None)
        classifiers = {one["name"]: _classifier(one, encoder, shard) for one in filters}
        for samples in batches(read_shard(shard.fetch(unit))):
            features = encoder.images(samples)
            scores = {
                name: _probability(features, classifier) if classifier
                else _cosines(features, encoder.texts([sample.caption for sample in samples]))
                for name, classifier in classifiers.items()
            }  # fmt: skip
            for number, sample in enumerate(samples):
                for name, values in scores.items():
                    value = round(float(values[number]), _DIGITS)
                    row = {"key": sample.key, "filter": name, "measure": "score", "value": value}
                    table.write(row)
    shard.add("scores", path, path.name, table.rows)


class _Head(NamedTuple):
    """Weights [C, D] and biases [C] of classes; the first `unwanted` of them are unwanted."""

    weight: np.ndarray
    bias: np.ndarray
    unwanted: int


def _classifier(asked: dict[str, Any], encoder: Encoder, shard: ShardWork) -> _Head | None:
    if asked["head"]:
        return _read_head(shard.fetch(asked["head"]), asked["head"])
    if not asked["unwanted"]:
        return None
    prompts = encoder.texts([*asked["unwanted"], *asked["wanted"]]) * encoder.scale
    return _Head(prompts, np.zeros(len(prompts), np.float32), len(asked["unwanted"]))


def _read_head(path: Path, source: Source) -> _Head:
    """A sigmoid's head as that of two classes, of which the second has no weights."""
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise PermanentError(f"head: {source.uri} is no safetensors file: {error}") from error
    if set(found) != {"weight", "bias"} or found["bias"].size != 1:
        shapes = {name: value.shape for name, value in found.items()}
        raise PermanentError(f"head: {source.uri} holds {shapes}, not weight [D] and bias []")
    weight = found["weight"].reshape(1, -1).astype(np.float32)
    bias = found["bias"].reshape(1).astype(np.float32)
    return _Head(np.append(weight, 0 * weight, axis=0), np.append(bias, 0 * bias), 1)


def _probability(features: np.ndarray, head: _Head) -> np.ndarray:
    if features.shape[1] != head.weight.shape[1]:
        raise PermanentError(
            f"head: has {head.weight.shape[1]} weights, but the model {features.shape[1]} features"
        )
    logits = features @ head.weight.T + head.bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares[:, : head.unwanted].sum(axis=1) / shares.sum(axis=1))


def _cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    return np.asarray((images * texts).sum(axis=1))


def _values(unit: Unit, names: Sequence[str], work: Work) -> np.ndarray:
    """Scores [pairs, filters] of one shard."""
    table = read_columns(work.fetch(unit), FINDING_SCHEMA, ["value"])
    return np.asarray(table["value"].to_numpy().reshape(-1, len(names)))


def _cuts(filters: Sequence[Criterion], values: np.ndarray) -> list[Cut]:
    """The bounds in numbers; a share to keep is one of the pairs that filters before it leave."""
    left = np.ones(len(values), dtype=bool)
    cuts = []
    for one, column in zip(filters, values.T, strict=True):
        bound = one.classifier.max if one.classifier else 0.0
        if one.similarity:
            bound = one.similarity.min or 0.0
            if one.similarity.keep is not None:
                bound = _least(column[left], one.similarity.keep)
        cuts.append(Cut(one.name, one.reason, bound))
        left &= ~cuts[-1].objects(column)
    return cuts


def _least(values: np.ndarray, share: float) -> float:
    """The lowest of the best `share` of values; equal ones stay with it."""
    count = int(np.ceil(share * len(values)))
    return float(np.partition(values, -count)[-count]) if count else 0.0


def _dropped(unit: Unit, cuts: list[Cut], work: Work) -> dict[str, list[str]]:
    """By key why a pair of a shard is dropped: the first objection."""
    names = [cut.name for cut in cuts]
    values = _values(unit, names, work)
    keys = read_columns(work.fetch(unit), FINDING_SCHEMA, ["key"])["key"][:: len(cuts)].to_pylist()
    objections = np.stack([cut.objects(values[:, n]) for n, cut in enumerate(cuts)], axis=1)
    found = {}
    for row in np.flatnonzero(objections.any(axis=1)):
        first = int(objections[row].argmax())
        found[keys[row]] = [str(cuts[first].reason), cuts[first].detail(values[row, first])]
    return found


def _tell(unit: Unit, cuts: list[Cut], work: Work) -> Unit:
    """The scores of one shard, with what each filter would object to."""
    for reason, _ in _dropped(unit, cuts, work).values():
        work.count(f"would_drop/{reason}")
    by_name = {cut.name: cut for cut in cuts}
    rows = read_columns(work.fetch(unit), FINDING_SCHEMA, FINDING_SCHEMA.names).to_pylist()
    for row in rows:
        cut = by_name[row["filter"]]
        if cut.objects(np.array(row["value"])):
            row |= {"reason": str(cut.reason), "detail": cut.detail(row["value"])}
            work.count(f"objections/{cut.name}")
    path = work.scratch / unit.name
    return work.add(path, path.name, write_table(path, rows, FINDING_SCHEMA))
