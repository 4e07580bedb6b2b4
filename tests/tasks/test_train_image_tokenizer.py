"""The image tokenizer is trained on the pictures of shards, through the real training process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.shards import read_shard
from infra.work import Work
from model_zoo.weights import load_network
from schemas.artifact import ImageShards
from tasks.prepared import pixels, prepare
from tasks.train_image_tokenizer import ImageTokenizerParams, train_image_tokenizer
from tests.tasks.tiny_models import (
    DVAE,
    TEXT_LENGTH,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

TRAINING = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "engine": "torch", "log_every": 2}


def _params(**changes: object) -> ImageTokenizerParams:
    values = {"config": DVAE, "training": TRAINING, "picture_side": 40, **changes}
    return ImageTokenizerParams.model_validate(values)


def test_it_trains_and_logs_and_its_codes_become_pictures(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    images = add_shards(work)
    found = train_image_tokenizer(images=images, params=_params(), work=work)
    network = load_network(work.fetch(found.units[0]))
    assert found.units[0].name == "dvae.safetensors"
    pictures = network.decode(network.codes(torch.zeros(2, 3, 32, 32)))
    assert pictures.shape == (2, 3, 32, 32)
    logged = {entry["name"] for entry in work.metrics()}
    assert {"loss", "psnr", "codebook_use", "tokens_per_second"} <= logged


def test_prepared_pictures_and_captions_stand_in_the_order_of_the_shard(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    work = Work.local(tmp_path)
    images, tokenizer = add_shards(work, pictures=5), add_text_tokenizer(work)
    files = prepare(images, 40, work, tokenizer, TEXT_LENGTH)
    for unit, file in zip(images.units, files, strict=True):
        found = load_file(file)
        for row, sample in enumerate(read_shard(work.fetch(unit))):
            np.testing.assert_array_equal(found["images"][row], pixels(sample, 40))
            tokens = [token for token in found["tokens"][row].tolist() if token >= 0]
            assert len(tokens) < TEXT_LENGTH
            assert max(tokens) < vocabulary_of(work, tokenizer)


def test_prepared_pictures_are_made_once(tmp_path: Path) -> None:
    first, images = Work.local(tmp_path), add_shards(Work.local(tmp_path))
    prepare(images, 40, first)
    second = Work.local(tmp_path)
    prepare(images, 40, second)
    assert (first.made, first.reused) == (2, 0)
    assert (second.made, second.reused) == (0, 2)


def test_no_pictures_is_an_error_that_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="not one picture"):
        train_image_tokenizer(images=ImageShards(), params=_params(), work=Work.local(tmp_path))


def test_a_wrong_size_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="resolution=33 does not divide"):
        _params(config={**DVAE, "resolution": 33})
