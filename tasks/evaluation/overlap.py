"""Which pictures to evaluate on are in the training set, too (section 3.1 and appendix C).

As in the paper, each has its nearest training picture, and a person sets the threshold by looking:
a sheet for each way of comparing shows the pairs around it. A picture that one of the declared ways
takes for a training picture counts as one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import PermanentError
from infra.shards import Sample, read_shard
from infra.work import Work
from schemas.artifact import Unit
from tasks.evaluation.comparison import Comparison
from tasks.evaluation.describing import read_words
from tasks.evaluation.features import Extractor
from tasks.evaluation.nearest import Nearest, nearest_by_features
from tasks.evaluation.nearest_hash import nearest_by_hash
from tasks.prepared import pixels
from tasks.sheets import Cell, Row, draw_sheet

_BESIDE = 8  # pairs that are shown on either side of the threshold

Subset = tuple[np.ndarray, np.ndarray]  # rows of the drawn and of the real pictures that are kept

OVERLAPS = "overlap.jsonl"  # each picture to evaluate on, its nearest training pictures, how near


@dataclass(frozen=True)
class Overlap:
    """The keys of M pictures to evaluate on, and what each declared way of comparing found."""

    keys: tuple[str, ...]
    found: tuple[Nearest, ...]

    @property
    def overlaps(self) -> np.ndarray:
        """Which pictures count as training pictures by any of the ways, bool [M]."""
        return np.logical_or.reduce([one.overlaps for one in self.found])

    def metrics(self) -> dict[str, float]:
        """How many overlap, by each way and, if there are several, by any."""
        counted = {one.name: one.overlaps for one in self.found}
        if len(counted) > 1:
            counted["any"] = self.overlaps
        return {
            f"overlap/{name}/{what}": float(value)
            for name, overlaps in counted.items()
            for what, value in (("count", overlaps.sum()), ("share", overlaps.mean()))
        }

    def apart(self, drawn_captions: Sequence[str], captions: Sequence[str]) -> Subset:
        """What is left without overlapping pictures, and without those drawn for their captions.

        Raises:
            PermanentError: if nothing is left, saying how many overlap by each bound.
        """
        overlaps, kept = self.overlaps, ~self.overlaps
        if overlaps.all():
            every = "; ".join(
                f"comparison.{one.field} ({one.said_bound}): {one.overlaps.sum()} of"
                f" {len(self.keys)} real pictures overlap"
                for one in self.found
            )
            raise PermanentError(f"{every}; none is left, so look for a closer bound")
        texts = np.array(captions)
        gone = set(texts[overlaps].tolist()) - set(texts[kept].tolist())
        drawn = np.flatnonzero([text not in gone for text in drawn_captions])
        return drawn, np.flatnonzero(kept)

    def write(self, path: Path) -> Path:
        """A line of JSON for each picture, the most alike by the first way first."""
        overlaps = self.overlaps
        rows: list[dict[str, Any]] = [
            {"key": self.keys[i], "overlaps": bool(overlaps[i])} for i in range(len(self.keys))
        ]
        for one in self.found:
            for i, row in enumerate(rows):
                row.update(one.row(i))
        lines = (json.dumps(rows[i], sort_keys=True) + "\n" for i in self.found[0].order)
        path.write_text("".join(lines))
        return path

    def draw(
        self, reference: Sequence[Unit], training: Sequence[Unit], side: int, work: Work
    ) -> list[Path]:
        """For each way the sheet `overlap-NAME.png` of pairs around its threshold."""
        paths = []
        for one in self.found:
            paths.append(work.scratch / f"overlap-{one.name}.png")
            _draw(self.keys, one, reference, training, side, work).save(paths[-1])
        return paths


def find_overlap(
    real: Sequence[Unit], features: Sequence[Unit], extractor: Extractor, side: int,
    training: Sequence[Unit], comparison: Comparison, work: Work,
) -> Overlap:  # fmt: skip
    """Compare with all training pictures, by every bound that is declared.

    Args:
        real: the shards to evaluate on; features: of the same pictures, by the extractor.
        side: pixels of a side of what the extractor is given.
    """
    found: list[Nearest] = []
    if (bound := comparison.overlap) is not None:
        found.append(nearest_by_features(features, training, extractor, side, bound, work))
    if (bits := comparison.overlap_bits) is not None:
        found.append(nearest_by_hash(real, training, bits, comparison.likeness, work))
    return Overlap(tuple(read_words([work.fetch(unit) for unit in features], "keys")), tuple(found))


def _draw(
    keys: Sequence[str], nearest: Nearest, reference: Sequence[Unit], training: Sequence[Unit],
    side: int, work: Work,
) -> Any:  # fmt: skip
    """A sheet of pairs: to evaluate on, and its nearest training picture; the most alike first."""
    above = int(nearest.overlaps.sum())
    chosen = [int(i) for i in nearest.order[max(0, above - _BESIDE) : above + _BESIDE]]
    shards = sorted({int(nearest.units[i]) for i in chosen})
    left = _find(reference, {keys[i] for i in chosen}, work.fetch)
    right = _find([training[n] for n in shards], {nearest.key(i) for i in chosen}, work.fetch)
    rows = []
    for i in chosen:
        pair = left[keys[i]], right[nearest.key(i)]
        cells = [Cell(pixels(sample, side), bool(nearest.overlaps[i])) for sample in pair]
        rows.append(Row(nearest.said(i), cells, [sample.caption for sample in pair]))
    return draw_sheet(f"trained on: {nearest.said_bound}", rows)


def _find(
    shards: Iterable[Unit], keys: set[str], fetch: Callable[[Unit], Path]
) -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    for unit in shards:
        found |= {one.key: one for one in read_shard(fetch(unit)) if one.key in keys}
        if len(found) == len(keys):
            break
    return found
