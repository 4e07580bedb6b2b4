"""A checkpoint goes on bit for bit on as many processes, and closely on any other number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from model_zoo.training.shards import Shards
from tests.model_zoo.training.cases import Case, run_cases

_HALF = 12
_TRAINING = {"steps": 2 * _HALF, "checkpoint_every": _HALF, "precision": "fp16"}
_COMPRESSION = {"rank": 8, "warm_start": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Whole runs on four processes, and what others made of their checkpoints half-way."""
    folder = tmp_path_factory.mktemp("elastic")

    def case(name: str, machines: int, **training: object) -> Case:
        return Case(folder, name, machines, **{**_TRAINING, **training})

    plain, packed = {"precision": "fp32"}, {"compression": _COMPRESSION}
    whole = [
        case("ZeRO 2", 2, **packed),
        case("FSDP2", 2, engine="fsdp", schedule="plateau", **packed),
        case("fp32", 2, **plain),
    ]
    zero, fsdp, fp32 = whole
    again = [
        case("ZeRO 2, again", 2, **packed).resumes(zero, _HALF),
        case("FSDP2, again", 2, engine="fsdp", schedule="plateau", **packed).resumes(fsdp, _HALF),
        case("ZeRO 2 to 3", 2, zero_stage=3, **packed).resumes(zero, _HALF),
        case("ZeRO 2 to FSDP2", 2, engine="fsdp", **packed).resumes(zero, _HALF),
    ]
    run_cases([*whole, *again], 4)
    fewer = [
        case("two processes", 1, **packed).resumes(zero, _HALF),
        case("two processes, fp32", 1, **plain).resumes(fp32, _HALF),
    ]
    run_cases(fewer, 2)
    more = [
        case("eight processes", 4, **packed).resumes(zero, _HALF),
        case("eight processes, fp32", 4, **plain).resumes(fp32, _HALF),
    ]
    run_cases(more, 8)
    return {one.name: one for one in whole + again + fewer + more}


@pytest.mark.parametrize("name", ["ZeRO 2", "FSDP2"])
def test_resumed_it_is_the_same_bit_for_bit(runs: dict[str, Case], name: str) -> None:
    """Error buffers, factors, scales, schedule, average and moments included."""
    whole, again = runs[name], runs[f"{name}, again"]
    np.testing.assert_array_equal(again.losses(), whole.losses())
    weights, wanted = load_file(again.output), load_file(whole.output)
    for key, value in wanted.items():
        assert (weights[key] == value).all(), key
    last = f"step-{2 * _HALF:07d}"
    then, now = (
        Shards((one.checkpoints / last).glob("errors-00001-*.safetensors"))
        for one in (whole, again)
    )
    assert then.names("error") == now.names("error") != set()


@pytest.mark.parametrize("name", ["two processes, fp32", "eight processes, fp32"])
def test_uncompressed_any_number_of_processes_goes_on_as_before(
    runs: dict[str, Case], name: str
) -> None:
    np.testing.assert_allclose(runs[name].losses(), runs["fp32"].losses(), rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["ZeRO 2 to 3", "ZeRO 2 to FSDP2", "two processes", "eight processes"]
)
def test_compressed_it_goes_on_within_two_percent(runs: dict[str, Case], name: str) -> None:
    """Pieces are others, so that what is left out of each update is another."""
    whole, other = runs["ZeRO 2"].losses(), runs[name].losses()
    np.testing.assert_allclose(other[_HALF : _HALF + 1], whole[_HALF : _HALF + 1], rtol=1e-4)
    np.testing.assert_allclose(other[-10:].mean(), whole[-10:].mean(), rtol=0.02)


def test_every_process_of_every_machine_writes_its_error_buffers(runs: dict[str, Case]) -> None:
    """What becomes of their numbers is `test_error_buffers`'s."""
    before = runs["ZeRO 2"].checkpoints / f"step-{_HALF:07d}"
    state = json.loads((before / "state.json").read_text())
    assert (state["machines"], state["processes"]) == (2, 4)
    names = sorted(path.name for path in before.glob("errors-*"))
    assert names == [
        f"errors-{machine:05d}-{place:05d}.safetensors" for machine in (0, 1) for place in (0, 1)
    ]


def test_a_checkpoint_of_another_training_is_refused(runs: dict[str, Case], tmp_path: Path) -> None:
    other = Case(tmp_path, "other", 1, **{**_TRAINING, "engine": "torch", "learning_rate": 1e-4})
    other.resumes(runs["fp32"], _HALF)
    with pytest.raises(AssertionError, match="precision: fp16, but the checkpoint|learning_rate"):
        run_cases([other], 1)
