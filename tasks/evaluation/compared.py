"""Drawn pictures against real ones: FID, precision and recall, Inception Score, rFID, overlap.

Pictures become features on the workers, and so do features figures: with Inception's 2,048 features
one Fréchet distance takes seconds, and there are as many as radii of blur.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import PermanentError
from infra.shards import read_shard
from infra.work import ShardWork, Work
from schemas.artifact import Unit
from tasks.candidates import CandidateSet
from tasks.devices import steady_threads
from tasks.evaluation.comparison import Comparison
from tasks.evaluation.describing import (
    describe_drawn,
    describe_pairs,
    feature_name,
    read_features,
    read_words,
)
from tasks.evaluation.distances import check_count, fid, inception_score, precision_recall
from tasks.evaluation.features import INCEPTION_WIDTH, LOGITS, Extractor
from tasks.evaluation.overlap import Overlap, Subset, find_overlap
from tasks.measures import clip_score

_ROWS = 128  # pictures that one worker describes at a time; it holds them and their features


@dataclass(frozen=True)
class Real:
    """The pictures to compare with: the first `count` of these shards, at `side` pixels."""

    name: str
    units: tuple[Unit, ...]
    count: int | None
    side: int
    image_tokenizer: Unit


@dataclass
class Compared:
    """What was found: metrics, curves over the radius, what was compared, and the overlap."""

    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[float, float]] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    overlap: Overlap | None = None


@dataclass(frozen=True)
class _Described:
    """Files of features on one extractor."""

    extractor: Extractor
    drawn: tuple[Unit, ...]
    real: tuple[Unit, ...]
    rebuilt: tuple[Unit, ...]


def compare(
    ranked: Sequence[Unit], sets: Sequence[CandidateSet], real: Real, training: Sequence[Unit],
    extractors: Sequence[Extractor], comparison: Comparison, work: Work,
) -> Compared:  # fmt: skip
    """Compare on the features of every extractor; overlap is found by the first one, a ranker's.

    Raises:
        PermanentError: if there are too few pictures for what is to be measured.
    """
    rows = choose_rows(sets, comparison)
    drawn, pairs = _drawn_plans(ranked, rows, work), _pair_plans(real, work)
    if not pairs:
        raise PermanentError(f"there is not one picture among {real.name}")
    counts = {"drawn": sum(map(len, rows)), "real": sum(unit.records or 0 for unit in pairs)}
    for extractor in extractors:
        if extractor.name == "inception":  # before minutes go into its features
            check_count(min(counts.values()), INCEPTION_WIDTH)
    found = Compared()
    described = [_describe(one, drawn, pairs, real, comparison, work) for one in extractors]
    subsets = {"": (np.arange(counts["drawn"]), np.arange(counts["real"]))}
    if comparison.overlap_bounds:
        own = described[0]
        found.overlap = find_overlap(
            real.units, own.real, own.extractor, real.side, training, comparison, work
        )
        found.metrics |= found.overlap.metrics()
        words = ([work.fetch(unit) for unit in units] for units in (own.drawn, own.real))
        subsets["without_overlap/"] = found.overlap.apart(
            *(read_words(paths, "captions") for paths in words)
        )
    _measure(found, described, subsets, comparison, work)
    _score_captions(found, described, work)
    found.described = _description(comparison, extractors, real, counts, subsets)
    return found


def choose_rows(
    sets: Sequence[CandidateSet], comparison: Comparison
) -> list[list[tuple[int, int]]]:
    """For each file of candidates which of them are compared: (prompt, candidate)."""
    places = [
        (number, prompt, candidate)
        for number, one in enumerate(sets)
        for prompt in range(len(one.prompts))
        for candidate in range(min(one.count, comparison.of_each or one.count))
    ]
    if comparison.drawn is not None and comparison.drawn < len(places):
        generator = np.random.default_rng(comparison.seed)
        kept = np.sort(generator.choice(len(places), comparison.drawn, replace=False))
        places = [places[index] for index in kept]
    rows: list[list[tuple[int, int]]] = [[] for _ in sets]
    for number, prompt, candidate in places:
        rows[number].append((prompt, candidate))
    return rows


def _drawn_plans(
    ranked: Sequence[Unit], rows: Sequence[list[tuple[int, int]]], work: Work
) -> list[Unit]:
    plans = []
    for number, (unit, chosen) in enumerate(zip(ranked, rows, strict=True)):
        for start in range(0, len(chosen), _ROWS):
            part = chosen[start : start + _ROWS]
            plan = {"unit": unit.model_dump(), "rows": part}
            plans.append(_put(plan, f"drawn-{number:05d}-{start:06d}", len(part), work))
    return plans


def _pair_plans(real: Real, work: Work) -> list[Unit]:
    plans: list[Unit] = []
    left = real.count
    for number, unit in enumerate(real.units):
        there = unit.records
        if there is None:
            there = sum(1 for _ in read_shard(work.fetch(unit)))
        count = there if left is None else min(there, left)
        left = None if left is None else left - count
        for start in range(0, count, _ROWS):
            part = min(_ROWS, count - start)
            plan = {"unit": unit.model_dump(), "start": start, "count": part}
            plans.append(_put(plan, f"real-{number:05d}-{start:06d}", part, work))
    return plans


def _describe(
    extractor: Extractor, drawn: Sequence[Unit], pairs: Sequence[Unit], real: Real,
    comparison: Comparison, work: Work,
) -> _Described:  # fmt: skip
    radii = comparison.radii
    of_drawn = work.map(describe_drawn, drawn, extractor=extractor, radii=radii)
    # Captions are scored, and overlap is found, on pictures as they are.
    whole = radii if 0 in radii else (0.0, *radii)
    of_pairs = work.map(
        describe_pairs, pairs, extractor=extractor, radii=whole, side=real.side,
        image_tokenizer=real.image_tokenizer,
    )  # fmt: skip
    return _Described(
        extractor, of_drawn.units("drawn"), of_pairs.units("reference"),
        of_pairs.units("reconstructions"),
    )  # fmt: skip


def _measure(
    found: Compared, described: Sequence[_Described], subsets: dict[str, Subset],
    comparison: Comparison, work: Work,
) -> None:  # fmt: skip
    plans: list[Unit] = []
    labels: list[tuple[str, str, float]] = []
    for one in described:
        for radius in comparison.radii:
            for subset, rows in subsets.items():
                labels.append((one.extractor.name, subset, radius))
                plans.append(_measure_plan(one, rows, radius, len(plans), work))
    mapped = work.map(measure, plans, neighbours=comparison.neighbours)
    for (name, subset, radius), unit in zip(labels, mapped.units("measured"), strict=True):
        for metric, value in json.loads(work.fetch(unit).read_text()).items():
            found.metrics[f"{metric}/{name}/{subset}blur_{radius:g}"] = value
            if metric in ("fid", "rfid"):
                curve = found.curves.setdefault(f"{metric}/{name}/{subset}".rstrip("/"), {})
                curve[radius] = value


def _measure_plan(one: _Described, rows: Subset, radius: float, number: int, work: Work) -> Unit:
    plan = {
        "radius": radius, "inception": one.extractor.name == "inception",
        "drawn": [unit.model_dump() for unit in one.drawn], "drawn_rows": rows[0].tolist(),
        "real": [unit.model_dump() for unit in one.real], "real_rows": rows[1].tolist(),
        "rebuilt": [unit.model_dump() for unit in one.rebuilt],
    }  # fmt: skip
    return _put(plan, f"measure-{number:05d}", 0, work)


def measure(plan: Unit, shard: ShardWork, *, neighbours: int) -> None:
    """The figures of one radius of blur on one extractor's features, as JSON."""
    asked = json.loads(shard.fetch(plan).read_text())

    def rows_of(side: str, rows: str, name: str) -> np.ndarray:
        paths = [shard.fetch(Unit(**unit)) for unit in asked[side]]
        return read_features(paths, name)[asked[rows]]

    name = feature_name(asked["radius"])
    drawn, real = rows_of("drawn", "drawn_rows", name), rows_of("real", "real_rows", name)
    rebuilt = rows_of("rebuilt", "real_rows", name)
    with steady_threads():
        found = {**fid(drawn, real), **precision_recall(drawn, real, neighbours)}
        found["rfid"] = fid(rebuilt, real)["fid"]
        if asked["inception"]:
            logits = feature_name(asked["radius"], LOGITS)
            found |= inception_score(rows_of("drawn", "drawn_rows", logits))
    path = shard.scratch / f"measured-{plan.name}"
    path.write_text(json.dumps(found, sort_keys=True))
    shard.add("measured", path, path.name)


def _score_captions(found: Compared, described: Iterable[_Described], work: Work) -> None:
    """What real pictures score with their own captions: what drawn ones are to be held against."""
    for one in described:
        if one.extractor.text_tokenizer is not None:
            scores = read_features([work.fetch(unit) for unit in one.real], "scores")
            found.metrics[f"clip_score/{one.extractor.name}/real"] = clip_score(scores)


def _description(
    comparison: Comparison, extractors: Sequence[Extractor], real: Real,
    counts: dict[str, int], subsets: dict[str, Subset],
) -> dict[str, Any]:  # fmt: skip
    """What has to be said beside the figures."""
    found = {
        "drawn pictures": counts["drawn"], "real pictures": counts["real"],
        "real pictures are": real.name, "pixels a side": real.side,
        "best-ranked of each prompt": comparison.of_each or "all",
        "seed of the choice of drawn pictures": comparison.seed,
        "radii of blur, in pixels": list(comparison.radii),
        "neighbours of precision and recall": comparison.neighbours,
    }  # fmt: skip
    for extractor in extractors:
        found[f"weights of {extractor.name}"] = extractor.weights.sha256
    if comparison.overlap is not None:
        found["cosine from which a picture overlaps"] = comparison.overlap
    if comparison.overlap_bits is not None:
        found["bits of 256 up to which a picture overlaps"] = comparison.overlap_bits
        found["levels of 255 by which its thumbnail may differ, on average and anywhere"] = [
            comparison.mean_difference,
            comparison.most_difference,
        ]
    if comparison.overlap_bounds:
        drawn, kept = subsets["without_overlap/"]
        found["drawn, real pictures without overlap"] = [len(drawn), len(kept)]
    return found


def _put(plan: dict[str, Any], name: str, records: int, work: Work) -> Unit:
    path: Path = work.scratch / f"{name}.json"
    path.write_text(json.dumps(plan, sort_keys=True))
    return work.store.put(path, path.name, records)
