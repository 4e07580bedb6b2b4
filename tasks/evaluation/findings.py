"""What an evaluation has found: numbers, curves, and what each judge says of each candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.base import digest
from tasks.candidates import PromptCandidates
from tasks.evaluation import matched
from tasks.evaluation.checked import RIGHT, Checker, Verdict, shares
from tasks.evaluation.compared import Compared
from tasks.evaluation.gains import Worth, curve, gains
from tasks.evaluation.originals import Reconstructed
from tasks.judging import Judge
from tasks.measures import NearestCaption, clip_score

Groups = Mapping[str, Sequence[PromptCandidates]]


@dataclass
class Findings:
    """Filled by one judge after the other; `verdicts` and `ranks` are by group and prompt."""

    groups: Groups
    originals: Reconstructed
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    compared: Compared = field(default_factory=Compared)
    verdicts: dict[str, list[list[Verdict]]] = field(default_factory=dict)
    ranks: dict[str, np.ndarray] = field(default_factory=dict)
    judges: list[dict[str, str]] = field(default_factory=list)

    @property
    def evaluator(self) -> dict[str, str] | None:
        """Who judged, by name and digest: what metrics must share to be compared."""
        if len(self.judges) < 2:
            return self.judges[0] if self.judges else None
        return {
            "name": " + ".join(one["name"] for one in self.judges),
            "digest": digest(self.judges),
        }

    def judge_by_checker(self, checker: Checker) -> None:
        """Verdicts on all candidates, and on pictures whose captions are known to be true."""
        self.judges.append({"name": checker.name, "digest": checker.digest})
        originals = self.originals
        for name, pictures in (
            ("originals", originals.originals), ("reconstructions", originals.pictures),
        ):  # fmt: skip
            verdicts = checker.check_captioned(pictures, originals.captions)
            self.metrics |= shares(verdicts, f"checker/{name}/")
        for group, prompts in self.groups.items():
            self.verdicts[group] = found = checker.check_candidates(prompts)
            self.metrics |= shares([of_prompt[0] for of_prompt in found if of_prompt], f"{group}/")
            worths = [[float(one[RIGHT] or 0) for one in of_prompt] for of_prompt in found]
            self._add_gains(group, RIGHT, worths)

    def judge_by_ranker(self, judge: Judge, ranker: str) -> None:
        """Whether each candidate finds its own prompt among all, and how well it matches it."""
        self.judges.append({"name": f"ranker:{judge.name}", "digest": ranker})
        self.ranks, cosines = matched.own_ranks(judge, self.groups)
        self.metrics |= _caption_scores(cosines.values(), "evaluator")
        for group, ranks in self.ranks.items():
            self.metrics |= matched.rank_metrics(ranks, f"{group}/")
            worths = [[float(rank == 1) for rank in of_prompt] for of_prompt in ranks]
            self._add_gains(group, "own_caption_first", worths)

    def score(self) -> None:
        """What the ranker that chose says itself: its scores, and how they grow with choice.

        It praises its own choice, so the average candidate and other judges are to be looked at.
        """
        by_group = {g: [one.scores for one in prompts] for g, prompts in self.groups.items()}
        self.metrics |= _caption_scores(by_group.values(), "ranker")
        for group, scores in by_group.items():
            points = curve([one.tolist() for one in scores])
            self.metrics |= {f"{group}/score_best_of_{n}": value for n, value in points.items()}
            self.scores[group.replace("_", " ")] = points

    def add(self, compared: Compared) -> None:
        """What sets of pictures have in common."""
        self.compared = compared
        self.metrics |= compared.metrics

    def _add_gains(self, group: str, name: str, worths: Sequence[Worth]) -> None:
        found = gains(worths, name)
        self.metrics |= {f"{group}/{key}": value for key, value in found.items()}
        points = curve(worths)
        self.metrics |= {f"{group}/{name}_best_of_{n}": value for n, value in points.items()}
        if points:
            self.curves[f"{group}: {name.replace('_', ' ')}"] = points

    def table(self, nearest: NearestCaption) -> list[dict[str, Any]]:
        """One JSON row for each prompt: its nearest training caption, and what became of it."""
        return [
            self._row(group, number, one, nearest)
            for group, prompts in self.groups.items()
            for number, one in enumerate(prompts)
        ]

    def _row(
        self, group: str, number: int, one: PromptCandidates, nearest: NearestCaption
    ) -> dict[str, Any]:
        caption, distance = nearest.find(one.prompt.text)
        row: dict[str, Any] = {
            "prompt": one.prompt.text, "group": group, "why": one.prompt.why,
            "nearest_caption": caption, "nearest_distance": distance,
            "scores": [round(float(score), 5) for score in one.scores],
            "seeds": [int(seed) for seed in one.seeds],
        }  # fmt: skip
        if group in self.verdicts:
            row["verdicts"] = self.verdicts[group][number]
        if group in self.ranks:
            row["own_caption_ranks"] = self.ranks[group][number].tolist()
        return row


def _caption_scores(groups: Iterable[Iterable[np.ndarray]], name: str) -> dict[str, float]:
    """CLIP scores of first-ranked pictures and of all, from cosines [N] of each prompt."""
    cosines = [one for prompts in groups for one in prompts]
    return {
        f"clip_score/{name}": clip_score(np.array([one[0] for one in cosines])),
        f"clip_score/{name}_average": clip_score(np.concatenate(cosines)),
    }
