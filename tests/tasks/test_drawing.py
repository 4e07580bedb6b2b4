"""Drawing keeps the best of the candidates, alike for one seed, and as the stages do it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.work import Work
from model_zoo.maskgit_sampler import MaskgitSampling
from schemas.artifact import Artifact, TextTokenizer
from tasks.candidates import read_candidates
from tasks.drawing import Artist, ModelFiles, draw_to_folder
from tasks.painting import candidate_seeds, decode_part
from tasks.rank_images import RankParams, rank_images
from tasks.sample_images import SampleParams, sample_images
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_ranker,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work.local(tmp_path_factory.mktemp("drawing"))


@pytest.fixture(scope="module")
def model(work: Work) -> dict[str, Artifact]:
    tokenizer = add_text_tokenizer(work)
    vocabulary = vocabulary_of(work, tokenizer)
    return {
        "prior": add_prior(work, vocabulary), "image_tokenizer": add_image_tokenizer(work),
        "text_tokenizer": tokenizer, "ranker": add_ranker(work, vocabulary),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(work: Work, model: dict[str, Artifact]) -> Path:
    """The model as the registry keeps it: four files in a folder."""
    folder = work.environment.home / "model"
    folder.mkdir()
    for name, artifact in model.items():
        path = work.fetch(artifact.units[0])
        shutil.copyfile(path, folder / f"{name}{path.suffix}")
    return folder


def test_the_best_are_kept_best_first_and_alike_each_time(folder: Path) -> None:
    artist = Artist.load(folder)
    drawn = artist.draw(PROMPTS, candidates=5, keep=3, seed=7)
    assert [len(pictures) for pictures in drawn] == [3, 3]
    for pictures in drawn:
        scores = [one.score for one in pictures]
        assert scores == sorted(scores, reverse=True)
        assert all(one.picture.size == (32, 32) for one in pictures)
    again = Artist.load(folder).draw(PROMPTS, candidates=5, keep=5, seed=7)
    assert [one.seed for one in again[1]][:3] == [one.seed for one in drawn[1]]
    np.testing.assert_array_equal(again[1][0].picture, drawn[1][0].picture)
    other = artist.draw(PROMPTS, candidates=5, keep=3, seed=8)
    assert {one.seed for one in other[0]}.isdisjoint(one.seed for one in again[0])


def test_the_stages_draw_and_rank_what_the_artist_does(
    work: Work, model: dict[str, Artifact], folder: Path
) -> None:
    inputs = {name: model[name] for name in ("prior", "image_tokenizer", "text_tokenizer")}
    params = SampleParams(prompts=tuple(PROMPTS), candidates=5, seed=7)
    candidates = sample_images(**inputs, params=params, work=work)
    ranked = rank_images(
        candidates=candidates, ranker=model["ranker"], text_tokenizer=model["text_tokenizer"],
        params=RankParams(), work=work,
    )  # fmt: skip
    found = read_candidates(work.fetch(ranked.units[0]))
    assert found.ranker == model["ranker"].digest
    assert found.scores is not None
    drawn = Artist.load(folder).draw(PROMPTS, candidates=5, keep=5, seed=7)
    for row, pictures in enumerate(drawn):
        assert [one.seed for one in pictures] == found.seeds[row].tolist()
        np.testing.assert_allclose([one.score for one in pictures], found.scores[row], atol=1e-6)
        for place, one in enumerate(pictures):
            pixels = found.pictures[row, place].transpose(1, 2, 0)
            np.testing.assert_array_equal(np.asarray(one.picture), pixels)


def test_another_generator_draws_as_its_folder_declares(
    work: Work, model: dict[str, Artifact], folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "model"
    shutil.copytree(folder, other)
    vocabulary = vocabulary_of(work, TextTokenizer(units=model["text_tokenizer"].units))
    prior = work.fetch(add_prior(work, vocabulary, "maskgit").units[0])
    shutil.copyfile(prior, other / "prior.safetensors")
    (other / "sampling.json").write_text('{"steps": 2, "temperature": 0.5}')
    drawn = Artist.load(other).draw(PROMPTS[:1], 2, 2)[0]
    settings = MaskgitSampling(steps=2, temperature=0.5)
    said = Artist.load(replace(ModelFiles.of(other), sampling=None))
    again = said.draw(PROMPTS[:1], 2, 2, sampling=settings)[0]
    assert [one.picture.tobytes() for one in drawn] == [one.picture.tobytes() for one in again]
    (folder / "sampling.json").write_text('{"steps": 2}')
    with pytest.raises(ValueError, match="steps: dalle has no such setting"):
        ModelFiles.of(folder)
    (folder / "sampling.json").unlink()


def test_a_folder_gets_the_pictures_and_a_sheet(folder: Path, tmp_path: Path) -> None:
    paths = draw_to_folder(folder, PROMPTS[0], 4, 2, 0, tmp_path / "out" / "here")
    assert [path.name for path in paths] == ["1.png", "2.png", "sheet.png"]
    best = Artist.load(folder).draw(PROMPTS[:1], 4, 1, 0)[0][0]
    with Image.open(paths[0]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(best.picture))
        said = {"prompt": PROMPTS[0], "seed": str(best.seed), "score": str(best.score)}
        assert picture.info == said
    assert paths[2].stat().st_size > 0


@pytest.mark.parametrize("network", ["dalle", "maskgit"])
def test_files_are_written_anew_as_rows_are_drawn_and_end_the_same(
    work: Work, model: dict[str, Artifact], folder: Path, tmp_path: Path, network: str
) -> None:
    vocabulary = vocabulary_of(work, TextTokenizer(units=model["text_tokenizer"].units))
    files = replace(
        ModelFiles.of(folder), prior=work.fetch(add_prior(work, vocabulary, network).units[0])
    )
    out, seen, rows = tmp_path / "out", [], []

    def look(done: int, of: int) -> None:
        rows.append((done, of))
        if (out / "2.png").exists():  # as it was written after the rows before these
            seen.append(np.asarray(Image.open(out / "2.png")))

    draw_to_folder(files, PROMPTS[0], 3, 2, 5, out, partial=True, progress=look)
    plain = draw_to_folder(files, PROMPTS[0], 3, 2, 5, tmp_path / "plain")
    for path in plain:
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["1.png", "2.png", "sheet.png"]
    assert rows == sorted(rows)
    assert rows[-1] == (8, 8)
    if network == "dalle":
        assert rows == [(number, 8) for number in range(1, 9)]
        painter = Artist.load(files).painter
        seeds = candidate_seeds(5, PROMPTS[:1], 3)
        codes = painter.paint(PROMPTS[:1], seeds)[0][:, :2]
        for number, picture in enumerate(seen, start=1):
            assert (picture[4 * number :] == 128).all()  # 32 pixels are 8 rows of codes
            part = np.where(np.arange(8)[:, None] < number, codes, -1)
            wanted = decode_part(painter.image_tokenizer, part)[0, 1].transpose(1, 2, 0)
            np.testing.assert_array_equal(picture, wanted)
        assert len(seen) == 7
    else:
        assert len(rows) == 12  # a step of its default each


def test_files_may_lie_anywhere(work: Work, model: dict[str, Artifact], folder: Path) -> None:
    files = ModelFiles(**{name: work.fetch(one.units[0]) for name, one in model.items()})
    one, other = (Artist.load(which).draw(PROMPTS[:1], 2, 1)[0][0] for which in (files, folder))
    assert one.seed == other.seed


@pytest.mark.parametrize(
    ("prompts", "numbers", "words"),
    [
        ([""], (4, 1), "is empty"),
        (["a\x07"], (4, 1), "control character"),
        (["red " * 80], (4, 1), "tokens long, but the model reads 32 at most"),
        (["red"], (4, 5), "keep=5, candidates=4"),
        (["red"], (0, 0), "keep=0, candidates=0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(
    folder: Path, prompts: list[str], numbers: tuple[int, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Artist.load(folder).draw(prompts, *numbers)
