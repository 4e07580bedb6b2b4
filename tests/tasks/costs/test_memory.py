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


def test_more_gpus_share_what_a_stage_shards_and_nothing_else() -> None:
    few, many = Hardware(machines=1), Hardware(machines=4)
    shared = {
        1: {"moments", "copy of weights"},
        2: {"moments", "copy of weights", "gradients"},
        3: {"moments", "weights", "gradients"},
    }
    for stage, names in shared.items():
        one, four = (_ours(TWELVE, some, 1, zero_stage=stage) for some in (few, many))
        for figure in one.figures:
            if figure.name.startswith((ALL, "activations, if")):
                continue
            smaller = four.value(figure.name) == figure.value / 4
            assert smaller == (figure.name in names or figure.value == 0), (stage, figure.name)


def test_a_sharding_that_does_not_fit_is_said_to_need_another() -> None:
    b200, h100 = Hardware("b200", 16), Hardware("h100", 16)
    assert _ours(TWELVE, b200, 1, zero_stage=2, precision="bf16").verdict.startswith("fits")
    found = _ours(TWELVE, h100, 1, zero_stage=2, precision="bf16")
    needed = found.value(f"{ALL}, with ZeRO 3")
    words = f"needs ZeRO 3, and even that takes {needed / 1e9:.3g} GB"
    assert found.verdict.startswith("does not fit") and words in found.verdict
    found = _ours(TWELVE, h100, 1, zero_stage=3, ema=0.99)
    assert found.verdict.endswith("no ZeRO stage fits")
    width = DalleConfig(
        text_vocabulary=16384, text_length=256, image_vocabulary=8192, grid_height=32,
        grid_width=32, width=2048, heads=32, layers=64,
    )  # fmt: skip
    a100 = Hardware("a100_40gb", machines=2)
    found = _ours(dalle_size(width), a100, 1, zero_stage=1, precision="bf16")
    assert found.verdict.endswith("; needs ZeRO 2")


def test_the_average_and_the_gathered_network_are_counted_where_they_are() -> None:
    whole = 4 * TWELVE.parameters
    for stage in (2, 3):
        without = _ours(TWELVE, V100S, 1, zero_stage=stage)
        with_it = _ours(TWELVE, V100S, 1, zero_stage=stage, ema=0.99)
        assert with_it.value(ALL) - without.value(ALL) == whole
    sharded = _ours(TWELVE, V100S, 1, zero_stage=3, precision="bf16")
    assert sharded.value("gathered whole") == 2 * whole > sharded.value("activations")
    parts = ("weights", "gradients", "moments", "buffers", "gathered whole")
    assert sharded.value(ALL) == sum(sharded.value(name) for name in parts)


def test_the_plain_engine_holds_everything_on_every_gpu() -> None:
    alone, two = (_ours(TWELVE, Hardware(gpus=gpus), 1, engine="torch") for gpus in (1, 2))
    whole = 4 * TWELVE.parameters
    assert alone.value(ALL) - alone.value("activations") == 4 * whole
    assert two.value(ALL) - alone.value(ALL) == whole  # gradients in one piece
    assert "plain torch" in alone.title
