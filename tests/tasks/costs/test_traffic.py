"""Bytes a step, against what each member of a ring sends when the ring is played through."""

from __future__ import annotations

from typing import Any

import pytest

from model_zoo.dalle import DalleConfig
from model_zoo.sizes import dalle_size
from model_zoo.training.config import TrainingConfig
from model_zoo.training.powersgd import Shape
from tasks.costs.hardware import Hardware
from tasks.costs.traffic import our_traffic, papers_traffic

SIZE = dalle_size(DalleConfig(
    text_vocabulary=20, text_length=16, image_vocabulary=8, grid_height=8, grid_width=6,
    width=64, heads=4, layers=6, conv_kernel=3,
))  # fmt: skip


def _around(members: int, size: float) -> float:
    """Bytes that each sends to gather, or to scatter, `size` bytes of which it has a part."""
    return sum(size / members for _ in range(members - 1))


def test_the_paper_s_traffic() -> None:
    found = papers_traffic(SIZE, Hardware(machines=4, gpus=8), rank=16)
    matrices, others = 2 * SIZE.matrices, 4 * SIZE.others
    assert found.value("inside, a GPU") == pytest.approx(3 * _around(8, matrices + others))
    shard = (matrices + others) / 8
    assert found.value("between, a GPU") == pytest.approx(2 * _around(4, shard))
    assert found.value("saved of matrices") == 1 - 5 * 16 / (8 * 64)
    packed = (matrices * 5 * 16 / (8 * 64) + others) / 8
    assert found.value("between, a GPU, compressed") == pytest.approx(2 * _around(4, packed))
    for name in ("between, a machine", "between, a machine, compressed"):
        assert found.value(name) == pytest.approx(8 * found.value(name.replace("machine", "GPU")))


def test_one_machine_sends_nothing_to_others() -> None:
    found = papers_traffic(SIZE, Hardware(machines=1, gpus=8), rank=None)
    assert found.value("between, a machine") == 0 < found.value("inside, a GPU")
    assert "saved of matrices" not in {one.name for one in found.figures}


def _training(**changes: Any) -> TrainingConfig:
    values = {"steps": 10, "batch_size": 8, "learning_rate": 1e-3, **changes}
    return TrainingConfig.model_validate(values)


@pytest.mark.parametrize("changes", [{"zero_stage": 1}, {"zero_stage": 3}, {"engine": "fsdp"}])
def test_our_traffic(changes: dict[str, Any]) -> None:
    found = our_traffic(SIZE, Hardware(machines=2, gpus=8), _training(**changes))
    whole = 4 * SIZE.parameters
    assert found.value("inside, a GPU") == pytest.approx(3 * _around(8, whole))
    assert found.value("between, a GPU") == pytest.approx(2 * _around(2, whole / 8))
    assert found.value("between, a machine") == pytest.approx(2 * _around(2, whole))
    alone = our_traffic(SIZE, Hardware(machines=1, gpus=16), _training(**changes))
    assert alone.value("between, a machine") == 0


@pytest.mark.parametrize("engine", ["fsdp", "ZeRO 3", "ZeRO 2"])
def test_our_compressed_traffic_is_what_the_exchange_would_send(engine: str) -> None:
    """Against the pieces of a layer's matrices, cut as the engine cuts them."""
    rank, m, d = 8, 4, SIZE.width
    changes = {"engine": "fsdp"} if engine == "fsdp" else {"zero_stage": int(engine[-1])}
    training = _training(compression={"rank": rank}, **changes)
    found = our_traffic(SIZE, Hardware(machines=2, gpus=m), training)
    parts = 1 if engine == "ZeRO 2" else m
    wide = (4 * d // parts, d)
    narrow = (d, 4 * d // parts) if engine == "fsdp" else (d // parts, 4 * d)
    sent = 0
    for rows, columns in [(d // parts, d)] * 4 + [wide, narrow]:
        sent += parts * Shape(rows, columns, 1 / parts).sent(rank)
    assert found.value("saved of matrices") == pytest.approx(1 - sent / (12 * d * d))
    numbers = SIZE.layers * sent + SIZE.others
    assert found.value("between, a machine") == pytest.approx(2 * _around(2, 4 * numbers))
