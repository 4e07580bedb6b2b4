"""An overflow in one process of several: the same block is left out on all machines, and no more.

Each engine does an update, another one in which one process alone has an overflow in one block, and
a third without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from model_zoo.training.config import TrainingConfig
from model_zoo.training.engine import Engine, build_engine
from model_zoo.training.fragments import Blocks
from model_zoo.training.moments import MOMENTS
from model_zoo.training.processes import Processes
from model_zoo.training.update import Updater
from tests.model_zoo.training.ranks import Ranks
from tests.model_zoo.training.test_scales import CONFIG, _Recipe

_HIT = "blocks.1"
_ENGINES: dict[str, dict[str, Any]] = {
    "zero": {"engine": "deepspeed", "zero_stage": 2}, "fsdp": {"engine": "fsdp"},
}  # fmt: skip


def _held(engine: Engine) -> dict[str, list[torch.Tensor]]:
    """Weights and moments of every fragment, copied."""
    held = {}
    for one in engine.fragments:
        span = (one.offset, one.numel)
        moments = [engine.optimizer.read(one.home, name, span).clone() for name in MOMENTS]
        held[one.name] = [one.weight.clone(), *moments]
    return held


def _blocks_that(
    differ: bool, then: dict[str, list[torch.Tensor]], now: dict[str, list[torch.Tensor]],
    blocks: Blocks,
) -> list[str]:  # fmt: skip
    """The blocks of which weights and both moments have changed, or of which none has."""
    kept: dict[str, set[bool]] = {}
    for name, held in now.items():
        pairs = zip(then[name], held, strict=True)
        kept.setdefault(blocks.of[name], set()).update(torch.equal(a, b) for a, b in pairs)
    return sorted(name for name, found in kept.items() if found == {not differ})


def _updates(name: str, processes: Processes, folder: Path) -> None:
    recipe, config = _Recipe("fp16"), TrainingConfig(**CONFIG, precision="fp16", **_ENGINES[name])
    blocks = Blocks.find(recipe.network)
    engine = build_engine(recipe, config, processes)  # type: ignore[arg-type]
    updater = Updater(engine, blocks, recipe.network, config, processes)
    branch = recipe.network.blocks[1].branch
    last = processes.rank == processes.size - 1
    said = []
    updater.observe(True)
    for spike in (False, last, False):
        then = _held(engine)
        branch.spike = spike
        loss, _ = engine.loss({"x": torch.zeros(1)}, 0, torch.Generator())
        updater.backward(loss, last=True)
        done = updater.update(1e-2)
        now = _held(engine)
        same = True
        for tensor in (one for held in now.values() for one in held):
            found = [torch.empty_like(tensor) for _ in range(processes.machines)]
            dist.all_gather(found, tensor, group=processes.counterparts)
            same &= torch.equal(found[0], found[1])
        assert updater.scales is not None
        said.append({
            "skipped": sorted(done.skipped),
            "changed": _blocks_that(True, then, now, blocks),
            "kept": _blocks_that(False, then, now, blocks),
            "held": sorted({blocks.of[name] for name in now}),
            "machines agree": same,
            "underflow": done.underflow,
            "scales": updater.scales.state(),
        })  # fmt: skip
    (folder / f"{name}-{processes.rank}.json").write_text(json.dumps(said))


def _run(folder: Path) -> None:
    with Processes(machines=2) as processes:
        for name in _ENGINES:
            _updates(name, processes, folder)


@pytest.mark.parametrize("size", [2, 4])
def test_one_process_s_overflow_leaves_out_that_block_everywhere(tmp_path: Path, size: int) -> None:
    ranks = Ranks(size, _run, tmp_path, log=tmp_path / "log.txt")
    assert ranks.wait(60) == 0, ranks.said()
    for name in _ENGINES:
        said = [json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in range(size)]
        held = sorted({block for first, *_ in said for block in first["held"]})
        assert _HIT in held and len(held) == 5, name  # four blocks, and what is outside of them
        for first, hit, after in said:
            assert [one["skipped"] for one in (first, hit, after)] == [[], [_HIT], []]
            assert all(one["machines agree"] for one in (first, hit, after))
            own = first["held"]
            assert hit["kept"] == [one for one in own if one == _HIT]
            assert hit["changed"] == [one for one in own if one != _HIT]
            assert after["changed"] == own
            assert first["underflow"] == said[0][0]["underflow"]
            assert set(first["underflow"]) == set(first["scales"])
            assert hit["scales"] == said[0][1]["scales"]
            assert hit["scales"][_HIT][0] < 2**13 < hit["scales"]["blocks.0"][0]
