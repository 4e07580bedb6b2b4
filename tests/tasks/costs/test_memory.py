"""Memory of a GPU: the paper's at 12 billion parameters, and ours against what DeepSpeed holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_zoo.dalle import DalleConfig
from model_zoo.sizes import TransformerSize, dalle_size
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import Section
from tasks.costs.hardware import Hardware
from tasks.costs.memory import ALL, our_memory, papers_memory

ROOT = Path(__file__).parents[3]
TWELVE = dalle_size(DalleConfig(
    text_vocabulary=16384, text_length=256, image_vocabulary=8192, grid_height=32, grid_width=32,
    width=3968, heads=62, layers=64,
))  # fmt: skip
ALWAYS = {"moments", "average", "error buffers"}
V100S = Hardware("v100_16gb", machines=128, gpus=8)


def _ours(size: TransformerSize, hardware: Hardware, samples: int, **changes: Any) -> Section:
    values = {"steps": 10, "batch_size": 8, "learning_rate": 1e-3, **changes}
    return our_memory(size, hardware, samples, TrainingConfig.model_validate(values))


def test_the_paper_s_run_fits_the_paper_s_gpu_only_when_it_is_sharded() -> None:
    found = papers_memory(TWELVE, V100S, 1, rank=896)
    lasting = sum(found.value(name) for name in ("weights", "moments", "gradients"))
    matrices, others = 12_092_178_432, TWELVE.parameters - 12_092_178_432
    assert lasting + found.value("error buffers") == (8 * matrices + 16 * others) / 8
    assert found.verdict.startswith("fits: 16.7 GB of 17.2 GB")
    alone = papers_memory(TWELVE, Hardware("v100_16gb", 1024, gpus=1), 1, rank=None)
    assert alone.value("weights") > 24e9
    assert alone.verdict.startswith("does not fit")


def test_without_compression_there_are_gradients_instead_of_error_buffers() -> None:
    with_it, without = (papers_memory(TWELVE, V100S, 1, rank) for rank in (896, None))
    assert without.value("error buffers") == without.value("factors") == 0
    gradients = with_it.value("gradients") + with_it.value("error buffers")
    assert without.value("gradients") == gradients


def test_ours_is_what_deepspeed_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("held.py"))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    size = dalle_size(DalleConfig.model_validate(measured["config"]))
    lasting = ("weights", "copy of weights", "gradients", "moments")
    for stage, held in measured["held"].items():
        found = _ours(size, Hardware(gpus=1), 2, zero_stage=int(stage))
        expected = sum(found.value(name) for name in lasting)
        if stage == "3":  # DeepSpeed makes its buffers once; under ZeRO 2 for each backward pass
            expected += found.value("buffers")
        assert held == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"zero_stage": 1}, {*ALWAYS, "copy of weights"}),
        ({"zero_stage": 2}, {*ALWAYS, "copy of weights", "gradients"}),
        ({"zero_stage": 3}, {*ALWAYS, "weights", "gradients"}),
        ({"engine": "fsdp"}, {*ALWAYS, "weights", "gradients"}),
        ({"engine": "torch"}, set()),
    ],
)  # fmt: skip
def test_the_gpus_of_a_machine_share_what_is_sharded_and_machines_share_nothing(
    changes: dict[str, Any], names: set[str]
) -> None:
    compressed = {"ema": 0.99, "compression": {"rank": 896}, **changes}
    few, many, machines = (
        _ours(TWELVE, Hardware(machines=machines, gpus=gpus), 1, **compressed)
        for machines, gpus in ((2, 2), (2, 8), (16, 2))
    )
    for figure in few.figures:
        if figure.name.startswith((ALL, "activations, if")):
            continue
        assert machines.value(figure.name) == figure.value
        smaller = many.value(figure.name) == figure.value / 4
        assert smaller == (figure.name in names or figure.value == 0), figure.name


def test_a_sharding_that_does_not_fit_is_said_to_need_another() -> None:
    h100 = Hardware("h100", 16)
    assert _ours(TWELVE, h100, 1, zero_stage=3, recompute=True).verdict.startswith("fits")
    found = _ours(TWELVE, h100, 1, zero_stage=2, precision="bf16")
    assert found.verdict.startswith("does not fit") and found.verdict.endswith("; needs ZeRO 3")
    v100 = Hardware("v100_16gb", 16)
    found = _ours(TWELVE, v100, 1, zero_stage=2)
    needed = found.value(f"{ALL}, with ZeRO 3")
    assert f"needs ZeRO 3, and even that takes {needed / 1e9:.3g} GB" in found.verdict
    found = _ours(TWELVE, v100, 1, zero_stage=3, ema=0.99)
    assert found.verdict.endswith("no sharding fits")
    width = DalleConfig(
        text_vocabulary=16384, text_length=256, image_vocabulary=8192, grid_height=32,
        grid_width=32, width=2048, heads=32, layers=64,
    )  # fmt: skip
    a100 = Hardware("a100_40gb", machines=2)
    found = _ours(dalle_size(width), a100, 1, zero_stage=1, precision="bf16")
    assert found.verdict.endswith("; needs ZeRO 2")


def test_what_saves_memory_is_counted() -> None:
    plain = _ours(TWELVE, V100S, 1, zero_stage=3, precision="fp16")
    again = _ours(TWELVE, V100S, 1, zero_stage=3, precision="fp16", recompute=True)
    assert again.value("activations") == plain.value("activations, if recomputed")
    assert again.value("activations") < plain.value("activations") / 10
    half = _ours(TWELVE, V100S, 1, moments="bf16")
    assert half.value("moments") == TWELVE.parameters * 4 / 8
    away = _ours(TWELVE, V100S, 1, offload=True)
    assert away.value("moments") == away.value("copy of weights") == 0


def test_the_plain_engine_holds_everything_on_every_gpu() -> None:
    alone, two = (_ours(TWELVE, Hardware(gpus=gpus), 1, engine="torch") for gpus in (1, 2))
    whole = 4 * TWELVE.parameters
    assert alone.value(ALL) - alone.value("activations") == 4 * whole
    assert two.value(ALL) - alone.value(ALL) == whole  # gradients in one piece
    assert "plain torch" in alone.title


@pytest.mark.parametrize("recompute", [False, True])
def test_only_what_a_gpu_takes_at_a_time_has_activations(recompute: bool) -> None:
    whole, four, one = (
        _ours(TWELVE, V100S, share, zero_stage=3, recompute=recompute, micro_batch=micro)
        for share, micro in ((8, None), (8, 4), (4, None))
    )
    names = {"activations", ALL} | (set() if recompute else {"activations, if recomputed"})
    for name in names:
        assert four.value(name) == one.value(name) < whole.value(name)
    (said,) = (one.how for one in four.figures if one.name == "activations")
    assert said.endswith("samples: 4 of 8 at a time")


def test_a_micro_batch_that_training_would_refuse_is_said() -> None:
    found = _ours(TWELVE, V100S, 8, zero_stage=3, micro_batch=3)
    (said,) = (one.how for one in found.figures if one.name == "activations")
    assert said.endswith("training refuses `micro_batch: 3`, which must divide the 8 of a GPU")
