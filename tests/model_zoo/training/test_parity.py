"""All engines and precisions learn the same, on one process and on four as two machines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_zoo.training.checkpoints import read_state
from tests.model_zoo.training.cases import Case, run_cases


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Trainings in one process, and in four as two machines."""
    folder = tmp_path_factory.mktemp("parity")
    brief = {"steps": 15}  # while the learning rate rises, it is the same however long they are
    alone = [
        Case(folder, "alone", engine="torch"),
        Case(folder, "alone, long", engine="torch", steps=400),
    ]
    spread = [
        Case(folder, "torch", 2, engine="torch", **brief),
        Case(folder, "ZeRO 1", 2, zero_stage=1),
        Case(folder, "ZeRO 2", 2, zero_stage=2, micro_batch=1),
        Case(folder, "ZeRO 3", 2, zero_stage=3),
        Case(folder, "FSDP2", 2, engine="fsdp"),
        Case(folder, "FSDP2, two passes", 2, engine="fsdp", micro_batch=1, **brief),
        Case(
            folder, "ZeRO 3, two passes", 2, zero_stage=3, micro_batch=1, recompute=True, **brief
        ),
        Case(folder, "ZeRO 2, fp16", 2, precision="fp16"),
        Case(
            folder, "compressed", 2, steps=400, log_every=1,
            compression={"saving": 0.85, "warm_start": True},
        ),
    ]  # fmt: skip
    run_cases(alone, 1)
    run_cases(spread, 4)
    return {case.name: case for case in alone + spread}


@pytest.mark.parametrize("name", ["ZeRO 1", "ZeRO 2", "ZeRO 3", "FSDP2"])
def test_engines_on_four_processes_learn_as_one_process_does(
    trained: dict[str, Case], name: str
) -> None:
    np.testing.assert_allclose(trained[name].losses(), trained["alone"].losses(), rtol=1e-4)
    weights, wanted = load_file(trained[name].output), load_file(trained["alone"].output)
    assert weights.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(_felt(key, weights[key]), _felt(key, value), rtol=0, atol=2e-3)


def _felt(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Without biases of keys: softmax does not feel them, so that Adam makes steps of rounding."""
    if not name.endswith("qkv.bias"):
        return weight
    queries, _, values = weight.chunk(3)
    return torch.cat([queries, values])


@pytest.mark.parametrize("name", ["torch", "FSDP2, two passes", "ZeRO 3, two passes"])
def test_gradients_of_processes_and_passes_add_up_to_those_of_one(
    trained: dict[str, Case], name: str
) -> None:
    np.testing.assert_allclose(
        trained[name].losses()[:10], trained["alone"].losses()[:10], rtol=1e-4
    )


def test_fp16_with_scales_learns_as_fp32_does(trained: dict[str, Case]) -> None:
    np.testing.assert_allclose(
        trained["ZeRO 2, fp16"].losses(), trained["alone"].losses(), rtol=1e-3
    )
    scales = read_state(trained["ZeRO 2, fp16"].checkpoints / "step-0000100")["scales"]
    assert len(scales) == 4
    for value, _ in scales.values():
        assert value == pytest.approx(2**13 * 2 ** (100 / 1000))


def test_compressed_to_a_quarter_it_ends_within_two_percent(trained: dict[str, Case]) -> None:
    plain, packed = trained["alone, long"], trained["compressed"]
    sent, whole = (trained[name].metric("exchange_bytes") for name in ("compressed", "ZeRO 2"))
    assert sent < whole / 3.8
    assert packed.losses()[-50:].mean() <= 1.02 * plain.losses()[-50:].mean()
    assert plain.losses()[-50:].mean() < 0.6 * plain.losses()[0]
