"""Checkpoints are written in a thread, and are ones when all processes have written."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model_zoo.training import checkpoints
from model_zoo.training.processes import Processes
from model_zoo.training.writer import Writer
from tests.model_zoo.training.ranks import Ranks


def _files(value: float) -> dict[str, dict[str, Tensor]]:
    return {"shard.safetensors": {"w": torch.full((1 << 16,), value)}}


def test_a_checkpoint_is_one_when_it_is_published(tmp_path: Path, processes: Processes) -> None:
    writer = Writer(tmp_path, processes, keep=2, keep_best=0)
    assert writer.done and writer.pending is None
    writer.publish()  # nothing to do
    writer.start(3, _files(1.0), {"loss": 1.0})
    assert writer.pending == 3
    deadline = time.monotonic() + 20
    while not writer.done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checkpoints.complete_checkpoints(tmp_path) == []
    writer.publish()
    assert writer.pending is None
    written = checkpoints.newest(tmp_path)
    assert written is not None and checkpoints.step_of(written) == 3
    assert checkpoints.read_state(written) == {"loss": 1.0, "files": ["shard.safetensors"]}
    assert load_file(written / "shard.safetensors")["w"][0] == 1.0


def test_the_next_one_waits_for_the_one_before(tmp_path: Path, processes: Processes) -> None:
    writer = Writer(tmp_path, processes, keep=2, keep_best=1)
    for step, loss in ((1, 0.5), (2, 3.0), (3, 2.0), (4, 1.0)):
        writer.start(step, _files(step), {"loss": loss})
    writer.settle()
    left = [checkpoints.step_of(path) for path in checkpoints.complete_checkpoints(tmp_path)]
    assert left == [1, 3, 4]


def test_without_room_it_says_so_and_leaves_the_checkpoint_before(
    megabyte: Path, processes: Processes
) -> None:
    writer = Writer(megabyte, processes, keep=2, keep_best=0)
    writer.start(1, {"shard.safetensors": {"w": torch.ones(3)}}, {"loss": 1.0})
    writer.settle()
    writer.start(2, {"shard.safetensors": {"w": torch.zeros(1 << 19)}}, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"update 2: the disk is full .* from update 1$"):
        writer.settle()
    assert [path.name for path in megabyte.iterdir()] == ["step-0000001"]
    assert load_file(megabyte / "step-0000001/shard.safetensors")["w"].tolist() == [1] * 3


_STEP = 8


def _publish_as_the_loop_does(folder: Path, broken: str) -> int:
    """Two checkpoints, of which rank 1 cannot write the second; what each rank says goes to files.

    Every process has ended its thread when they are about to publish.
    """
    with Processes() as processes:
        writer = Writer(folder / "checkpoints", processes, keep=2, keep_best=0)
        for step in (4, _STEP):
            name = f"shard-{processes.rank:05d}.safetensors"
            if step == _STEP and processes.rank == 1:
                name = broken
            writer.start(step, {name: {"w": torch.ones(4)}}, {"loss": 1.0})
            while processes.mean([float(writer.done)]) != [1.0]:
                time.sleep(0.01)
            try:
                writer.publish()
            except OSError as error:
                (folder / f"said-{processes.rank}").write_text(str(error))
    return 0


def test_what_one_process_cannot_write_is_no_checkpoint_and_all_say_why(tmp_path: Path) -> None:
    broken = "absent/shard-00001.safetensors"  # in a folder that is not there
    ranks = Ranks(2, _publish_as_the_loop_does, tmp_path, broken, log=tmp_path / "log.txt")
    assert ranks.wait(60) == 0, ranks.said()
    for rank in (0, 1):
        said = (tmp_path / f"said-{rank}").read_text()
        assert said.startswith(f"checkpoint of update {_STEP} was not written: rank 1: ")
        assert "No such file" in said
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints.complete_checkpoints(folder)] == ["step-0000004"]
    newest = checkpoints.newest(folder)
    assert newest is not None and checkpoints.step_of(newest) == 4
    assert {path.name for path in newest.glob("shard-*")} == {
        f"shard-{rank:05d}.safetensors" for rank in (0, 1)
    }
