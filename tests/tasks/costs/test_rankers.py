"""Training a ranker: in fp32, at the rate of matrix products, on as many GPUs as have a pair."""

from __future__ import annotations

import pytest
import torch

from model_zoo.clip import CLIPConfig
from model_zoo.clip_size import clip_flops
from tasks.costs.hardware import Hardware
from tasks.costs.rankers import ranker_training
from tasks.train_ranker import RankerParams

CONFIG = {"text_length": 6, "resolution": 16, "patch": 4}
PARAMS = RankerParams.model_validate({
    "config": CONFIG, "training": {"steps": 1000, "batch_size": 12, "learning_rate": 1e-3},
})  # fmt: skip


@pytest.mark.parametrize(("kind", "rate"), [("v100_32gb", 15.7e12), ("a100_40gb", 19.5e12)])
def test_it_runs_at_the_rate_of_fp32_matrix_products(kind: str, rate: float) -> None:
    found = ranker_training("evaluator", PARAMS, 20, Hardware(kind, 2, 4, price=3.0), 0.5)
    flops = clip_flops(CLIPConfig.model_validate({**CONFIG, "text_vocabulary": 20}))
    seconds = 3 * flops * 12 / (4 * rate * 0.5)  # 12 pairs divide among one machine's GPUs only
    assert found.title == "Training evaluator"
    assert found.value("the run") == pytest.approx(1000 * seconds)
    assert found.value("the run, cost") == pytest.approx(1000 * seconds * 4 / 3600 * 3)


def test_torch_gives_matrix_products_fp32_in_full() -> None:
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_network_without_a_closed_form_is_named() -> None:
    other = PARAMS.model_copy(update={"network": "other"})
    with pytest.raises(ValueError, match=r"ranker: network 'other'.*known: clip"):
        ranker_training("ranker", other, 20, Hardware(), 0.5)
