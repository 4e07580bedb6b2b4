"""Error buffers of compression in checkpoints: every machine's own, or their sum over machines.

Two processes, a machine each, write both kinds; any number of machines takes them up (DALL-E,
appendix E: the sum over the machines that there were, divided by the number that there are).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model_zoo.training.powersgd import Exchange
from model_zoo.training.processes import Processes
from tests.model_zoo.training.ranks import Ranks
from tests.model_zoo.training.test_saving import _keeper

_MACHINES = 2


def _fill(keeper: Any, machine: int) -> None:
    """Give every piece that is compressed a machine's made-up error."""
    for one in keeper.engine.fragments:
        for piece in keeper.blocks.cut(one, one.weight):
            if piece.share is not None:
                error = torch.from_numpy(_error(piece.key, tuple(piece.gradient.shape), machine))
                keeper.exchange.errors[piece.key] = error


def _error(key: str, shape: tuple[int, ...], machine: int) -> np.ndarray:
    draw = np.random.default_rng([zlib.crc32(key.encode()), machine])
    return draw.standard_normal(shape).astype(np.float32)


def _loaded(processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The error buffers of a process that goes on from a checkpoint."""
    keeper = _keeper(processes, "fp32")
    keeper.exchange = Exchange(processes.counterparts, processes.machines, rank=2)
    keeper.load(folder, 1, _MACHINES)
    errors: dict[str, torch.Tensor] = keeper.exchange.errors
    return errors


def _write(folder: Path) -> None:
    """Write a checkpoint of each kind, and what two machines read of them again."""
    with Processes(_MACHINES) as processes:
        for kind in ("own", "sum"):
            keeper = _keeper(processes, "fp32")
            keeper.sum_errors = kind == "sum"
            keeper.exchange = Exchange(processes.counterparts, _MACHINES, rank=2)
            _fill(keeper, processes.machine)
            for name, tensors in keeper.files().items():
                save_file(tensors, folder / kind / name)
            for key, held in keeper.exchange.errors.items():  # the training goes on with its own
                wanted = _error(key, tuple(held.shape), processes.machine)
                assert np.array_equal(held.numpy(), wanted), key
            processes.wait()
            found = {key: value.contiguous() for key, value in
                     _loaded(processes, folder / kind).items()}  # fmt: skip
            save_file(found, folder / f"{kind}-again-{processes.rank}")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both checkpoints."""
    folder = tmp_path_factory.mktemp("errors")
    for kind in ("own", "sum"):
        (folder / kind).mkdir()
    ranks = Ranks(_MACHINES, _write, folder, log=folder / "log.txt")
    assert ranks.wait(60) == 0, ranks.said()
    return folder


def _check(found: dict[str, torch.Tensor], machines: int) -> None:
    assert len(found) > 2
    for key, value in found.items():
        parts = [_error(key, tuple(value.shape), machine) for machine in range(_MACHINES)]
        wanted = np.sum(parts, axis=0, dtype=np.float64) / machines
        np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-5, atol=1e-6, err_msg=key)


def test_each_machine_s_own_are_written_or_one_sum(written: Path) -> None:
    names = {
        kind: sorted(path.name for path in (written / kind).glob("errors-*"))
        for kind in ("own", "sum")
    }
    assert names == {
        "own": ["errors-00000-00000.safetensors", "errors-00001-00000.safetensors"],
        "sum": ["errors-99999-00000.safetensors"],
    }


@pytest.mark.parametrize("kind", ["own", "sum"])
@pytest.mark.parametrize("machines", [1, 3, 4])
def test_on_another_number_of_machines_the_sum_is_divided_by_it(
    written: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch, kind: str, machines: int
) -> None:
    monkeypatch.setattr(processes, "machines", machines)
    _check(_loaded(processes, written / kind), machines)


def test_on_as_many_machines_each_has_its_own_again(written: Path) -> None:
    for machine in range(_MACHINES):
        found = load_file(written / f"own-again-{machine}")
        assert len(found) > 2
        for key, value in found.items():
            wanted = _error(key, tuple(value.shape), machine)
            np.testing.assert_array_equal(value.numpy(), wanted, err_msg=key)


def test_on_as_many_machines_a_sum_is_divided_all_the_same(written: Path) -> None:
    for machine in range(_MACHINES):
        _check(load_file(written / f"sum-again-{machine}"), _MACHINES)
