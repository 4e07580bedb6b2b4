"""A trained model as one thing that draws: candidates are painted, ranked, and the best kept.

`tapir sample` and the registered model draw with this; the stages `sample_images` and `rank_images`
do the same in two steps, and give the same pictures for the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_zoo.generators import AS_IN_PAPER, Sampling
from tasks.candidates import SAMPLING, CandidateSet, Prompt, PromptCandidates
from tasks.devices import steady_threads
from tasks.judging import Judge
from tasks.painting import Painter, candidate_seeds
from tasks.sheets import Cell, Row, draw_sheet


@dataclass(frozen=True)
class ModelFiles:
    """The four files of a text-to-image model, and how it is sampled from."""

    prior: Path
    image_tokenizer: Path
    text_tokenizer: Path
    ranker: Path
    sampling: Sampling = AS_IN_PAPER

    @classmethod
    def of(cls, folder: Path) -> ModelFiles:
        """The files of a folder, which are named after their parts."""
        declared = folder / SAMPLING
        sampling = AS_IN_PAPER
        if declared.exists():
            sampling = Sampling.model_validate_json(declared.read_text())
        return cls(
            folder / "prior.safetensors", folder / "image_tokenizer.safetensors",
            folder / "text_tokenizer.json", folder / "ranker.safetensors",
            sampling,
        )  # fmt: skip

    def sampled_as(self, declared: Mapping[str, Any]) -> ModelFiles:
        """The same files, sampled from as declared (fields of `Sampling`)."""
        return replace(self, sampling=Sampling.model_validate(declared))


@dataclass(frozen=True)
class Drawn:
    """One picture, the ranker's score of it (higher is better), and the seed that drew it."""

    picture: Image.Image
    score: float
    seed: int


class Artist:
    """A painter and a judge."""

    def __init__(self, files: ModelFiles) -> None:
        self.painter = Painter(files.prior, files.image_tokenizer, files.text_tokenizer)
        self.judge = Judge(files.ranker, files.text_tokenizer)
        self.sampling = files.sampling

    @classmethod
    def load(cls, files: ModelFiles | Path) -> Artist:
        """The model in a folder (`ModelFiles.of`), or in files that lie anywhere."""
        return cls(files if isinstance(files, ModelFiles) else ModelFiles.of(files))

    def draw(
        self, prompts: Sequence[str], candidates: int = 16, keep: int = 4, seed: int = 0,
        sampling: Sampling | None = None,
    ) -> list[list[Drawn]]:  # fmt: skip
        """The best pictures of each prompt, best first.

        Args:
            candidates: how many are drawn of each prompt.
            keep: how many of them are given back.
            seed: the same prompt, number and seed give the same picture.
            sampling: how codes are drawn; None is how the model was evaluated.

        Raises:
            ValueError: for a prompt that cannot be drawn, or numbers that make no sense.
        """
        if not 1 <= keep <= candidates:
            raise ValueError(
                f"keep={keep}, candidates={candidates}: keep at least 1 and at most all candidates"
            )
        seeds = candidate_seeds(seed, prompts, candidates)
        with steady_threads():
            codes, pictures = self.painter.paint(prompts, seeds, sampling or self.sampling)
            scores = self.judge.scores(prompts, pictures)
        named = tuple(Prompt(prompt) for prompt in prompts)
        ranked = CandidateSet(named, seeds, codes, pictures).ranked(scores)
        return [_best(one, keep) for one in ranked.each()]


def draw_to_folder(
    files: ModelFiles | Path, prompt: str, candidates: int, keep: int, seed: int, folder: Path
) -> list[Path]:
    """Draw a prompt into a folder: `1.png` is the best picture, `sheet.png` shows all kept.

    Each picture's file says in its text fields which prompt and seed made it, and its score.

    Returns:
        The pictures' paths, best first, and then the sheet's.

    Raises:
        ValueError: as `Artist.draw`.
    """
    drawn = Artist.load(files).draw([prompt], candidates, keep, seed)[0]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place}.png" for place in range(1, len(drawn) + 1)]
    for path, one in zip(paths, drawn, strict=True):
        one.picture.save(path, pnginfo=_label(prompt, one))
    cells = [
        Cell(np.asarray(one.picture).transpose(2, 0, 1), note=f"{one.score:.3f}") for one in drawn
    ]
    title = f"best {len(drawn)} of {candidates}, seed {seed}"
    sheet = folder / "sheet.png"
    draw_sheet(title, [Row(prompt, cells)], side=128).save(sheet)
    return [*paths, sheet]


def _label(prompt: str, drawn: Drawn) -> PngInfo:
    label = PngInfo()
    for name, value in (("prompt", prompt), ("seed", drawn.seed), ("score", drawn.score)):
        label.add_itxt(name, str(value))
    return label


def _best(ranked: PromptCandidates, keep: int) -> list[Drawn]:
    columns = zip(ranked.pictures[:keep], ranked.scores, ranked.seeds, strict=False)
    return [
        Drawn(Image.fromarray(picture.transpose(1, 2, 0)), float(score), int(seed))
        for picture, score, seed in columns
    ]
