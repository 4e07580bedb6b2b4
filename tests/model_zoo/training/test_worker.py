"""The worker as a process: killed, stopped, damaged, spread, and given what cannot be trained."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from model_zoo.training.checkpoints import complete_checkpoints
from model_zoo.training.config import TRACE
from model_zoo.training.loop import Diverged
from model_zoo.training.processes import Processes
from model_zoo.weights import load_network
from tests.model_zoo.training.conftest import Run
from tests.model_zoo.training.ranks import ROOT
from tests.small_disk import small_disk


def _wait_for_step(run: Run, process: "subprocess.Popen[str]", step: int) -> None:
    deadline = time.monotonic() + 60
    while not (run.progress.exists() and run.losses() and max(run.losses()) >= step):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def _assert_same_end(run: Run, other: Run) -> None:
    assert run.losses() == other.losses()
    weights = load_file(other.output)
    for name, value in load_file(run.output).items():
        np.testing.assert_array_equal(value, weights[name])


def test_what_a_run_leaves_behind(deepspeed_run: Run) -> None:
    lines = [json.loads(line) for line in deepspeed_run.progress.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert set(lines[0]) == {"step", "loss", "metrics", "tokens_per_second", "time"}
    blocks = [f"layers.{n}.{half}" for n in (0, 1) for half in ("attention", "feedforward")]
    assert set(lines[0]["metrics"]) == {
        "text_loss", "image_loss", "learning_rate", "gradient_norm", "loader_share", "memory_gb",
        "cores", "utilisation", "norm/outside", *(f"norm/{block}" for block in blocks),
    }  # fmt: skip
    norms = [lines[5]["metrics"][f"norm/{name}"] for name in ["outside", *blocks]]
    assert lines[5]["metrics"]["gradient_norm"] == pytest.approx(np.linalg.norm(norms))
    assert 0 < lines[5]["metrics"]["utilisation"] < 1
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert [path.name for path in complete_checkpoints(deepspeed_run.checkpoints)] == [
        "step-0000008", "step-0000012"
    ]  # fmt: skip
    assert load_network(deepspeed_run.output).config.width == 16


def test_a_run_says_nothing_unless_something_is_wrong(deepspeed_run: Run) -> None:
    assert deepspeed_run.said == ""


def test_killed_and_resumed_it_ends_bit_for_bit_the_same(
    tmp_path: Path, deepspeed_run: Run
) -> None:
    run = Run(tmp_path)
    process = run.start()
    _wait_for_step(run, process, 9)
    process.kill()
    process.communicate()
    assert complete_checkpoints(run.checkpoints)
    # What the dead process may have left: a line of an update that is done again, half a line.
    with run.progress.open("a") as file:
        file.write('{"step": 11, "loss": 0.0}\n{"step": 1')
    run.finish()
    _assert_same_end(run, deepspeed_run)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(
    tmp_path: Path, deepspeed_run: Run
) -> None:
    run = Run(tmp_path)
    subprocess.run(["cp", "-r", deepspeed_run.checkpoints, tmp_path], check=True)
    run.progress.write_text(deepspeed_run.progress.read_text())
    shard = run.checkpoints / "step-0000012" / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    said = run.finish()
    assert "checkpoint step-0000012 is refused: shard-00000.safetensors is not what" in said
    _assert_same_end(run, deepspeed_run)


def test_sigterm_leaves_a_checkpoint_and_the_next_run_goes_on(tmp_path: Path) -> None:
    training = {"engine": "torch", "steps": 100, "checkpoint_every": 1000}
    run, whole = Run(tmp_path / "stopped", **training), Run(tmp_path / "whole", **training)
    process = run.start()
    _wait_for_step(run, process, 5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 128 + signal.SIGTERM
    assert not run.output.exists()
    (left,) = complete_checkpoints(run.checkpoints)
    assert left.name == f"step-{max(run.losses()):07d}"
    assert run.train_here() == whole.train_here() == 0
    _assert_same_end(run, whole)


def test_the_plain_engine_gives_the_losses_of_deepspeed(tmp_path: Path, deepspeed_run: Run) -> None:
    run = Run(tmp_path, engine="torch")
    assert run.train_here() == 0
    assert run.losses() == pytest.approx(deepspeed_run.losses(), rel=1e-4)


def test_a_loss_that_is_no_number_stops_with_the_update_named(tmp_path: Path) -> None:
    run = Run(
        tmp_path, engine="torch", learning_rate=1e20, warmup=0, clip_norm=None, checkpoint_every=1
    )
    with pytest.raises(Diverged, match=r"update \d+: the (loss|gradient) is (nan|inf)") as stopped:
        run.train_here()
    done = max(run.losses())
    said = str(stopped.value)
    assert f"update {done + 1}: " in said
    assert "layers." in said and "samples row " in said and "codes.safetensors" in said
    assert not run.output.exists()
    assert max(path.name for path in complete_checkpoints(run.checkpoints)) == f"step-{done:07d}"


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, engine="torch").train_here()
    with pytest.raises(ValueError, match="seed: 4, but the checkpoint .* was made with 3"):
        Run(tmp_path, engine="torch", seed=4).train_here()


def test_the_default_engine_goes_through_deepspeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deepspeed

    def refuse(**arguments: object) -> None:
        raise RuntimeError(f"initialize was called at stage {arguments['config']}")

    monkeypatch.setattr(deepspeed, "initialize", refuse)
    run = Run(tmp_path)
    assert "engine" not in json.loads(run.path.read_text())["training"]
    with pytest.raises(RuntimeError, match="initialize was called at stage .*'stage': 2"):
        run.train_here()


def test_what_it_needs_and_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match="deepspeed cannot be imported .* declare `engine: fsdp`"):
        run.train_here()
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="machines: 3 processes do not divide among 2 machines"):
        Processes(machines=2)


def test_a_rank_that_saves_nothing_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, engine="torch", compression={"rank": 16})
    run.path.write_text(json.dumps({**json.loads(run.path.read_text()), "machines": 2}))
    ranks = run.ranks(2)
    assert ranks.wait() != 0
    assert "compression.rank: 16 saves nothing with these matrices" in ranks.said()


def test_a_few_updates_can_be_traced(tmp_path: Path) -> None:
    run = Run(tmp_path, engine="torch", profile=2)
    assert run.train_here() == 0
    trace = json.loads(gzip.decompress((tmp_path / TRACE).read_bytes()))
    assert any("addmm" in event.get("name", "") for event in trace["traceEvents"])


def test_a_full_disk_ends_it_with_a_sentence_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    run = Run(tmp_path, engine="torch", steps=8)
    assert run.train_here() == 0
    size = sum(p.stat().st_size for p in run.checkpoints.rglob("*") if p.is_file())
    other = Run(tmp_path / "small", engine="torch", steps=40)
    words = r"checkpoint of update 8: the disk is full \(.*GB free"
    with small_disk(other.checkpoints, int(size * 0.8)):
        with pytest.raises(ValueError, match=words) as full:
            other.train_here()
        assert "goes on from update 4" in str(full.value)
        assert [path.name for path in complete_checkpoints(other.checkpoints)] == ["step-0000004"]


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "model_zoo.training.worker", sys.argv[1]])
time.sleep(600)
"""


def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    run = Run(tmp_path, engine="torch", steps=1_000_000)
    with subprocess.Popen([sys.executable, "-c", PARENT, str(run.path)], cwd=ROOT) as parent:
        _wait_for_step(run, parent, 2)  # type: ignore[arg-type]
        (worker,) = psutil.Process(parent.pid).children()
        os.kill(parent.pid, signal.SIGKILL)
    assert not psutil.wait_procs([worker], timeout=10)[1]
