"""Declarations of a training that cannot be meant are refused, with the field named."""

import pytest
import torch
from pydantic import ValidationError

from model_zoo.training.config import CompressionConfig, TrainingConfig
from model_zoo.training.engine import build_engine
from model_zoo.training.processes import Processes

BASE = {"steps": 100, "batch_size": 4, "learning_rate": 2.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warmup": 100}, "warmup: 100 updates, but only 100"),
        ({"schedule": "constant", "final_learning_rate": 1.0}, "no meaning with"),
        ({"schedule": "plateau", "final_learning_rate": 1.0}, "no meaning with"),
        ({"plateau": {"patience": 3}}, "plateau: has a meaning with `schedule: plateau` only"),
        ({"final_learning_rate": 3.0}, "3.0 is above learning_rate 2.0"),
        ({"engine": "torch", "offload": True}, "offload: engine `torch` has none; leave it out"),
        ({"engine": "fsdp", "offload": True}, "offload: engine `fsdp` has none; leave it out"),
        ({"precision": "fp16", "offload": True}, "offload: DeepSpeed then .* `precision: bf16`"),
        ({"compression": {}}, "rank, saving: give one of the two"),
        ({"compression": {"rank": 4, "saving": 0.5}}, "rank, saving: give one of the two"),
        ({"compression": {"saving": 1.0}}, "saving"),
        ({"compression": {"rank": 0}}, "rank"),
        ({"moments": "fp16"}, "moments"),
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"steps": 0}, "steps"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainingConfig.model_validate({**BASE, **changes})


def test_offloading_is_refused_where_there_are_gpus() -> None:
    config = TrainingConfig.model_validate({**BASE, "offload": True})
    with Processes() as processes:
        processes.device = torch.device("cuda")
        with pytest.raises(ValueError, match="offload: with GPUs .* leave it out"):
            build_engine(None, config, processes)  # type: ignore[arg-type]


def test_compression_may_be_declared_either_way() -> None:
    assert CompressionConfig(rank=896).saving is None
    assert CompressionConfig(saving=0.85).rank is None
