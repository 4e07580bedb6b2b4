"""The ranker is trained on the pipeline's own pairs, or taken as open_clip publishes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.weights import read_header
from schemas.artifact import Ranker
from tasks.judging import Judge
from tasks.train_ranker import RankerParams, train_ranker
from tests.tasks.tiny_models import TEXT_LENGTH, add_shards, add_text_tokenizer, vocabulary_of

SIZES = {
    "text_length": TEXT_LENGTH, "image_width": 16, "text_width": 16, "head_width": 8,
    "image_layers": 1, "text_layers": 1, "features": 8,
}  # fmt: skip
TRAINING = {"steps": 3, "batch_size": 8, "learning_rate": 1e-3, "engine": "torch", "log_every": 1}


def _train(work: Work, params: dict[str, Any]) -> Ranker:
    return train_ranker(
        images=add_shards(work), text_tokenizer=add_text_tokenizer(work),
        params=RankerParams.model_validate(params), work=work,
    )  # fmt: skip


def _scores(work: Work, ranker: Ranker) -> np.ndarray:
    tokenizer = work.fetch(add_text_tokenizer(work).units[0])
    judge = Judge(work.fetch(ranker.units[0]), tokenizer)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, size=(2, 3, 3, 32, 32), dtype=np.uint8)
    scores = judge.scores(["a red circle", "a blue square"], pictures)
    again = judge.scores(["a blue square"], pictures[1:])
    np.testing.assert_allclose(scores[1:], again, atol=1e-6)
    return scores


def test_it_is_trained_on_pictures_and_captions(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    ranker = _train(work, {"config": SIZES, "training": TRAINING})
    name, config = read_header(work.fetch(ranker.units[0]))
    assert name == "clip"
    assert config["text_vocabulary"] == vocabulary_of(work, add_text_tokenizer(work))
    assert {"loss", "accuracy"} <= {entry["name"] for entry in work.metrics()}
    scores = _scores(work, ranker)
    assert scores.shape == (2, 3)
    assert (np.abs(scores) <= 1.0001).all()
    # Read from the shards in every epoch, the pictures are the same.
    other = Work.local(tmp_path / "other")
    read = _train(other, {"config": SIZES, "training": TRAINING, "pictures": "shards"})
    assert read.units[0].sha256 == ranker.units[0].sha256


@pytest.fixture
def published(tmp_path: Path) -> dict[str, str]:
    """A small architecture that open_clip knows, and a file of weights for it."""
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    (tmp_path / "ViT-tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-tiny-for-tests.json")
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("ViT-tiny-for-tests").state_dict(), path)
    return {"architecture": "ViT-tiny-for-tests", "weights": str(path)}


def test_published_weights_are_taken_as_they_are(tmp_path: Path, published: dict[str, str]) -> None:
    work = Work.local(tmp_path)
    ranker = _train(work, {"network": "pretrained_clip", "config": published})
    assert read_header(work.fetch(ranker.units[0]))[0] == "pretrained_clip"
    scores = _scores(work, ranker)
    assert (np.abs(scores) <= 1.0001).all()
    assert len(set(scores.ravel().tolist())) == 6


def test_an_unknown_tag_is_said_and_not_tried_again(
    tmp_path: Path, published: dict[str, str]
) -> None:
    config = {**published, "weights": "no-such-tag"}
    with pytest.raises(PermanentError, match="no-such-tag"):
        _train(Work.local(tmp_path), {"network": "pretrained_clip", "config": config})


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"config": SIZES}, "clip is trained; declare how"),
        ({"config": {}, "training": TRAINING}, "text_length: this key is missing"),
        ({"config": {**SIZES, "text_vocabulary": 9}, "training": TRAINING}, "leave it out"),
        ({"network": "pretrained_clip", "config": {"weights": "x"}}, "architecture: this key"),
        (
            {
                "network": "pretrained_clip",
                "config": {"architecture": "a", "weights": "b"}, "training": TRAINING,
            },
            "taken as published",
        ),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused_when_it_is_read(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RankerParams.model_validate(params)
