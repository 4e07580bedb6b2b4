"""What was written by processes that cut parameters one way is read by those that cut another."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model_zoo.training import checkpoints
from model_zoo.training.fragments import Fragment
from model_zoo.training.shards import (
    Shards,
    as_held,
    as_stored,
    key_of,
    read_weights,
    write_shard,
)

SHAPES: dict[str, tuple[int, ...]] = {"block.w": (6, 8), "tall": (9, 3), "bias": (7,)}


def _whole(name: str, kind: str = "weight") -> Tensor:
    numel = int(np.prod(SHAPES[name]))
    start = 1000 * list(SHAPES).index(name) + (0.5 if kind != "weight" else 0)
    return (torch.arange(numel) + start).view(SHAPES[name])


def _fragments(seed: int, processes: int, axis: int) -> Iterator[list[Fragment]]:
    """Each process's, some empty of some parameters; the cuts are drawn at random."""
    draw = np.random.default_rng([seed, processes, axis])
    cuts = {}
    for name, shape in SHAPES.items():
        own = axis if len(shape) == 2 else 0
        unit = shape[0] if own else 1
        marks = np.sort(draw.integers(0, np.prod(shape) // unit + 1, processes - 1)) * unit
        cuts[name] = (own, [0, *marks.tolist(), int(np.prod(shape))])
    for place in range(processes):
        found = []
        for name, (own, marks) in cuts.items():
            start, end = marks[place], marks[place + 1]
            if start < end:
                home = torch.empty(end - start)
                found.append(Fragment(name, SHAPES[name], start, home, 0, end - start, own))
        yield found


def _held(fragment: Fragment, whole: Tensor) -> Tensor:
    """What a process holds of a parameter: elements in its own order."""
    if fragment.axis:
        first = fragment.start // fragment.shape[0]
        columns = fragment.numel // fragment.shape[0]
        return whole[:, first : first + columns].reshape(-1)
    return whole.reshape(-1)[fragment.start : fragment.start + fragment.numel]


def _write(folder: Path, seed: int, processes: int, axis: int) -> Shards:
    folder.mkdir()
    paths = []
    for place, fragments in enumerate(_fragments(seed, processes, axis)):
        runs = {
            key_of(kind, one): as_stored(one, _held(one, _whole(one.name, kind)))
            for one in fragments
            for kind in ("weight", "exp_avg")
        }
        paths.append(folder / f"shard-{place}.safetensors")
        write_shard(paths[-1], runs)
    return Shards(paths)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("after", [0, 1])
def test_any_cut_is_read_from_any_other(tmp_path: Path, before: int, after: int) -> None:
    for seed, (writers, readers) in enumerate([(1, 3), (3, 1), (4, 2), (2, 4), (4, 4), (3, 7)]):
        shards = _write(tmp_path / str(seed), seed, writers, before)
        for fragments in _fragments(seed + 100, readers, after):
            for one in fragments:
                for kind in ("weight", "exp_avg"):
                    wanted = _held(one, _whole(one.name, kind))
                    assert torch.equal(shards.read(kind, one), wanted)
        for name, shape in SHAPES.items():
            assert torch.equal(shards.whole("weight", name, shape), _whole(name))
        assert shards.names("weight") == set(SHAPES)
        assert shards.names("error") == set()


@pytest.mark.parametrize("axis", [0, 1])
def test_stored_and_held_are_inverses(axis: int) -> None:
    fragment = Fragment("w", (6, 8), 12, torch.empty(18), 0, 18, axis)
    values = torch.arange(18.0)
    assert torch.equal(as_held(fragment, as_stored(fragment, values)), values)


def test_missing_numbers_are_said_or_filled(tmp_path: Path) -> None:
    write_shard(tmp_path / "one", {"weight/bias@0": torch.ones(3), "weight/w@4": torch.ones(2)})
    shards = Shards([tmp_path / "one"])
    bias = Fragment("bias", (7,), 1, torch.empty(6), 0, 6)
    with pytest.raises(ValueError, match=r"of bias \(weight\) it has 2 of the 6 numbers wanted"):
        shards.read("weight", bias)
    assert shards.read("weight", bias, rest=0.0).tolist() == [1, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"of bias \(exp_avg\) it has 0 of the 6"):
        shards.read("exp_avg", bias)
    with pytest.raises(ValueError, match=r"of w \(weight\) it has 2 of the 6"):
        shards.whole("weight", "w", (2, 3))
    turned = Fragment("w", (2, 3), 2, torch.empty(4), 0, 4, axis=1)
    with pytest.raises(ValueError, match=r"of w \(weight\) it has 2 of the 6"):
        shards.read("weight", turned)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("weight", torch.ones(2)),
        ("weight/w", torch.ones(2)),
        ("weight/w@", torch.ones(2)),
        ("weight/w@-1", torch.ones(2)),
        ("weight/w@1/T/T", torch.ones(2)),
        ("we-ight/w@1", torch.ones(2)),
        ("weight/w@1", torch.ones(2, 1)),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, key: str, values: Tensor) -> None:
    save_file({key: values}, tmp_path / "shard")
    with pytest.raises(ValueError, match=f"'{key}' is no run of a parameter"):
        Shards([tmp_path / "shard"])


def test_a_shard_is_a_copy_in_fp32_of_views(tmp_path: Path) -> None:
    home = torch.arange(10.0)
    write_shard(tmp_path / "one", {"weight/w@0": home[2:5], "weight/v@0": home[2:5]})
    shards = Shards([tmp_path / "one"])
    for name in ("w", "v"):
        assert shards.whole("weight", name, (3,)).tolist() == [2, 3, 4]


def test_a_single_number_is_a_parameter_too(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard-0.safetensors", {"weight/scale@0": torch.tensor([3.0])})
    whole = Shards([tmp_path / "shard-0.safetensors"]).whole("weight", "scale", ())
    assert whole.shape == () and whole == 3.0


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_gives_the_average_where_one_is_kept(tmp_path: Path, averaged: bool) -> None:
    random = torch.Generator().manual_seed(0)
    weight, average = torch.randn(2, 3, 4, generator=random)
    folder = checkpoints.unfinished(tmp_path, 7)
    checkpoints.begin(tmp_path, 7)
    for place, (start, end) in enumerate([(0, 5), (5, 12)]):
        runs = {f"weight/a@{start}": weight.flatten()[start:end]}
        if averaged:
            runs[f"average/a@{start}"] = average.flatten()[start:end]
        write_shard(folder / f"shard-{place:05d}.safetensors", runs)
    checkpoints.publish(tmp_path, 7)
    checkpoint = checkpoints.finished(tmp_path, 7)

    found = read_weights(checkpoint, {"a": (3, 4)})

    assert found.keys() == {"a"}
    assert torch.equal(found["a"], average if averaged else weight)
    with pytest.raises(ValueError, match=r"of b \(\w+\) it has 0 of the 2 numbers"):
        read_weights(checkpoint, {"b": (2,)})
    shard = checkpoint / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="step-0000007 is refused: shard-00001"):
        read_weights(checkpoint, {"a": (3, 4)})
