"""The prior is trained by DeepSpeed, at the sizes that its inputs have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.weights import read_header
from schemas.artifact import CodeShards
from tasks.train_prior import PriorParams, train_prior
from tests.tasks.tiny_models import add_image_tokenizer, add_text_tokenizer, vocabulary_of

PARAMS = {
    "config": {"width": 16, "heads": 2, "layers": 2, "conv_kernel": 3},
    "training": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "log_every": 1},
}


def _codes(work: Work) -> CodeShards:
    random, units = np.random.default_rng(0), []
    for number in range(2):
        path = work.scratch / f"codes-{number}.safetensors"
        tokens = random.integers(0, 250, size=(10, 12), dtype=np.int32)
        codes = random.integers(0, 16, size=(10, 2, 8, 8), dtype=np.int32)
        save_file({"tokens": tokens, "codes": codes}, path)
        units.append(work.add(path, path.name, 10))
    return CodeShards(units=tuple(units))


def test_its_sizes_are_those_of_tokenizers_and_codes(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    tokenizer = add_text_tokenizer(work)
    found = train_prior(
        codes=_codes(work), text_tokenizer=tokenizer, image_tokenizer=add_image_tokenizer(work),
        params=PriorParams.model_validate(PARAMS), work=work,
    )  # fmt: skip
    name, config = read_header(work.fetch(found.units[0]))
    assert name == "dalle"
    sizes = {"text_length": 12, "image_vocabulary": 16, "grid_height": 8, "grid_width": 8}
    assert config.items() >= {**sizes, "text_vocabulary": vocabulary_of(work, tokenizer)}.items()
    logged = [entry["step"] for entry in work.metrics() if entry["name"] == "image_loss"]
    assert logged == [1, 2, 3, 4]


def test_another_network_is_trained_from_the_same_codes(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    declared = {
        "network": "maskgit", "config": {"width": 16, "heads": 2, "layers": 2},
        "training": {**PARAMS["training"], "engine": "torch", "precision": "bf16"},
    }  # fmt: skip
    found = train_prior(
        codes=_codes(work), text_tokenizer=add_text_tokenizer(work),
        image_tokenizer=add_image_tokenizer(work),
        params=PriorParams.model_validate(declared), work=work,
    )  # fmt: skip
    name, config = read_header(work.fetch(found.units[0]))
    assert name == "maskgit"
    assert (config["text_length"], config["image_vocabulary"]) == (12, 16)
    shares = [entry["value"] for entry in work.metrics() if entry["name"] == "masked_share"]
    assert len(shares) == 4 and all(0 < share <= 1 for share in shares)


def test_deepspeed_trains_it_unless_declared_otherwise() -> None:
    assert PriorParams.model_validate(PARAMS).training.engine == "deepspeed"


def test_without_codes_there_is_nothing_to_try_again(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    tokenizers = {
        "text_tokenizer": add_text_tokenizer(work), "image_tokenizer": add_image_tokenizer(work),
    }  # fmt: skip
    with pytest.raises(PermanentError, match="no encoded pairs"):
        train_prior(
            codes=CodeShards(), **tokenizers, params=PriorParams.model_validate(PARAMS), work=work
        )
