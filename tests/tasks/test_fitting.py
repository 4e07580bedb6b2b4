"""Parts of a model that were not made for one another are refused, with both values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import PermanentError
from infra.work import Work
from tasks.drawing import Artist, ModelFiles
from tasks.rank_images import RankParams, rank_images
from tasks.sample_images import SampleParams, sample_images
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_ranker,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

TOKENS = 320  # of the text tokenizer; the image tokenizer has 16 codes and a grid of 8
IMAGE = r"image_tokenizer \(\S+-dvae-0\.safetensors\) has"
MISMATCHES = [
    ({"image_vocabulary": 17}, f"image_vocabulary 17, but {IMAGE} vocabulary 16"),
    ({"image_vocabulary": 15}, f"image_vocabulary 15, but {IMAGE} vocabulary 16"),
    ({"grid_height": 4}, f"grid_height 4, but {IMAGE} grid 8"),
    ({"grid_width": 9}, f"grid_width 9, but {IMAGE} grid 8"),
    ({"text_vocabulary": 321}, "text_vocabulary 321, but text_tokenizer has vocabulary 320"),
    ({"text_vocabulary": 300}, "text_vocabulary 300, but text_tokenizer has vocabulary 320"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work.local(tmp_path_factory.mktemp("fitting"))


@pytest.mark.parametrize("network", ["dalle", "maskgit"])
@pytest.mark.parametrize(("sizes", "said"), MISMATCHES)
def test_a_prior_of_other_tokenizers_draws_nothing(
    work: Work, network: str, sizes: dict[str, int], said: str
) -> None:
    params = SampleParams(prompts=("a red circle",), candidates=2, networks=(network, "dvae"))
    prior = add_prior(work, TOKENS, network, **sizes)
    with pytest.raises(PermanentError, match=rf"prior \(\S+-{network}-1\.safetensors\) has {said}"):
        sample_images(
            prior=prior, image_tokenizer=add_image_tokenizer(work),
            text_tokenizer=add_text_tokenizer(work), params=params, work=work,
        )  # fmt: skip
    assert not work.counts["pictures"]


def _files(work: Work, prior: int = TOKENS, ranker: int = TOKENS) -> ModelFiles:
    return ModelFiles(
        work.fetch(add_prior(work, prior).units[0]),
        work.fetch(add_image_tokenizer(work).units[0]),
        work.fetch(add_text_tokenizer(work).units[0]),
        work.fetch(add_ranker(work, ranker).units[0]),
    )


def test_a_model_of_parts_that_do_not_fit_is_not_loaded(work: Work) -> None:
    assert Artist.load(_files(work)).draw(["a red circle"], 1, 1)
    with pytest.raises(PermanentError, match="prior .* 319, but text_tokenizer has vocabulary 320"):
        Artist.load(_files(work, prior=319))
    other = add_prior(work, TOKENS, "dalle", image_vocabulary=64)
    with pytest.raises(PermanentError, match=f"image_vocabulary 64, but {IMAGE} vocabulary 16"):
        Artist.load(replace(_files(work), prior=work.fetch(other.units[0])))
    with pytest.raises(PermanentError, match=r"ranker .*text_vocabulary 330, .* vocabulary 320"):
        Artist.load(_files(work, ranker=330))


def test_a_ranker_of_another_text_tokenizer_ranks_nothing(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    tokenizer = add_text_tokenizer(work)
    assert vocabulary_of(work, tokenizer) == TOKENS
    drawn = sample_images(
        prior=add_prior(work, TOKENS), image_tokenizer=add_image_tokenizer(work),
        text_tokenizer=tokenizer, params=SampleParams(prompts=("a red circle",), candidates=2),
        work=work,
    )  # fmt: skip
    ranker = add_ranker(work, TOKENS + 1)
    said = r"ranker \(\S+-clip-2\.safetensors\) has text_vocabulary 321, but text_tokenizer"
    with pytest.raises(PermanentError, match=said):
        rank_images(
            candidates=drawn, ranker=ranker, text_tokenizer=tokenizer, params=RankParams(),
            work=work,
        )  # fmt: skip
