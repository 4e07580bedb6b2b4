"""A trained model as one thing that draws: candidates are painted, ranked, and the best kept.

`tapir sample` and the registered model draw with this; the stages `sample_images` and `rank_images`
do the same in two steps, and give the same pictures for the same seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model_zoo.generators import read_sampling
from model_zoo.weights import read_header
from schemas.base import Frozen
from tasks.candidates import SAMPLING, CandidateSet, Prompt, PromptCandidates
from tasks.devices import steady_threads
from tasks.given import Given
from tasks.judging import Judge
from tasks.painting import Painter, Watch, candidate_seeds, decode_part
from tasks.sheets import Cell, Row, draw_sheet

Progress = Callable[[int, int], None]  # rows drawn, and of how many


@dataclass(frozen=True)
class ModelFiles:
    """The four files of a text-to-image model, and how it is sampled from."""

    prior: Path
    image_tokenizer: Path
    text_tokenizer: Path
    ranker: Path
    sampling: Frozen | None = None
    """The prior's settings; None is as it draws by default."""
    cache_gb: float | None = None
    """Memory for the prior's keys and values; None is its own bound."""

    @classmethod
    def of(cls, folder: Path) -> ModelFiles:
        """The files of a folder, which are named after their parts."""
        files = cls(
            folder / "prior.safetensors", folder / "image_tokenizer.safetensors",
            folder / "text_tokenizer.json", folder / "ranker.safetensors",
        )  # fmt: skip
        declared = folder / SAMPLING
        return files.sampled_as(json.loads(declared.read_text())) if declared.exists() else files

    def sampled_as(self, declared: Mapping[str, Any]) -> ModelFiles:
        """The same files, sampled from as declared.

        Raises:
            ValueError: for a setting that the prior does not know.
        """
        network, _ = read_header(self.prior)
        return replace(self, sampling=read_sampling(network, declared))


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
        self.sampling, self.cache_gb = files.sampling, files.cache_gb

    @classmethod
    def load(cls, files: ModelFiles | Path) -> Artist:
        """The model in a folder (`ModelFiles.of`), or in files that lie anywhere."""
        return cls(files if isinstance(files, ModelFiles) else ModelFiles.of(files))

    def draw(
        self, prompts: Sequence[str], candidates: int = 16, keep: int = 4, seed: int = 0,
        sampling: Frozen | None = None, given: Given | None = None, watch: Watch | None = None,
    ) -> list[list[Drawn]]:  # fmt: skip
        """The best pictures of each prompt, best first.

        Args:
            candidates: how many are drawn of each prompt.
            keep: how many of them are given back.
            seed: the same prompt, number and seed give the same picture.
            sampling: how codes are drawn; None is how the model was evaluated.
            given: part of a picture that all begin with.
            watch: is told the codes so far (`tasks.painting.Painter.paint`).

        Raises:
            ValueError: for a prompt that cannot be drawn, numbers that make no sense, or a setting
                that the generator does not know.
        """
        if not 1 <= keep <= candidates:
            raise ValueError(
                f"keep={keep}, candidates={candidates}: keep at least 1 and at most all candidates"
            )
        seeds = candidate_seeds(seed, prompts, candidates)
        with steady_threads():
            known = given.codes(self.painter.image_tokenizer) if given else None
            how = sampling or self.sampling
            codes, pictures = self.painter.paint(prompts, seeds, how, known, watch, self.cache_gb)
            scores = self.judge.scores(prompts, pictures)
        named = tuple(Prompt(prompt) for prompt in prompts)
        ranked = CandidateSet(named, seeds, codes, pictures).ranked(scores)
        return [_best(one, keep) for one in ranked.each()]


def draw_to_folder(
    files: ModelFiles | Path, prompt: str, candidates: int, keep: int, seed: int, folder: Path,
    given: Given | None = None, partial: bool = False, progress: Progress | None = None,
) -> list[Path]:  # fmt: skip
    """Draw a prompt into a folder: `1.png` is the best picture, `sheet.png` shows all kept.

    Each picture's file says in its text fields which prompt and seed made it, and its score.

    Args:
        partial: write the files anew whenever more is drawn: the first candidates, not ranked yet,
            grey where nothing is drawn. The pictures in the end are the same.
        progress: is told how many rows of codes are drawn, and of how many.

    Returns:
        The pictures' paths, best first, and then the sheet's.

    Raises:
        ValueError: as `Artist.draw`.
    """
    artist = Artist.load(files)

    def watch(codes: np.ndarray) -> None:
        height = codes.shape[2]
        rows = int((codes >= 0).sum()) * height // codes.size
        if progress:
            progress(rows, height)
        if partial:
            part = decode_part(artist.painter.image_tokenizer, codes[:, :keep])[0]
            pictures = [Image.fromarray(one.transpose(1, 2, 0)) for one in part]
            title = f"row {rows} of {height}, not ranked yet"
            _write(folder, prompt, title, [(one, {}) for one in pictures])

    watched = watch if partial or progress else None
    (drawn,) = artist.draw([prompt], candidates, keep, seed, given=given, watch=watched)
    title = f"best {len(drawn)} of {candidates}, seed {seed}"
    said = [(one.picture, {"seed": one.seed, "score": one.score}) for one in drawn]
    return _write(folder, prompt, title, said)


def _write(
    folder: Path, prompt: str, title: str,
    pictures: Sequence[tuple[Image.Image, Mapping[str, float]]],
) -> list[Path]:  # fmt: skip
    """Write pictures and their sheet, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{place}.png" for place in range(1, len(pictures) + 1)]
    for path, (picture, said) in zip(paths, pictures, strict=True):
        _save(picture, path, _label({"prompt": prompt, **said}.items()))
    cells = [
        Cell(np.asarray(picture).transpose(2, 0, 1), note=f"{said['score']:.3f}" if said else "")
        for picture, said in pictures
    ]
    sheet = folder / "sheet.png"
    _save(draw_sheet(title, [Row(prompt, cells)], side=128), sheet)
    return [*paths, sheet]


def _save(picture: Image.Image, path: Path, label: PngInfo | None = None) -> None:
    unfinished = path.with_name(f".{path.name}")  # a viewer may be looking at the one before
    picture.save(unfinished, "PNG", pnginfo=label)
    unfinished.replace(path)


def _label(said: Iterable[tuple[str, Any]]) -> PngInfo:
    label = PngInfo()
    for name, value in said:
        label.add_itxt(name, str(value))
    return label


def _best(ranked: PromptCandidates, keep: int) -> list[Drawn]:
    columns = zip(ranked.pictures[:keep], ranked.scores, ranked.seeds, strict=False)
    return [
        Drawn(Image.fromarray(picture.transpose(1, 2, 0)), float(score), int(seed))
        for picture, score, seed in columns
    ]
