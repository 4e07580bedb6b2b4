"""What a process writes of its fragments; and that it comes back to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_zoo.training.ema import Average
from model_zoo.training.fragments import Blocks, Fragment
from model_zoo.training.moments import MOMENTS
from model_zoo.training.optimizer import AdamW
from model_zoo.training.powersgd import Exchange
from model_zoo.training.processes import Processes
from model_zoo.training.saving import Keeper, write_result
from model_zoo.transformer import Layer


class _OneHome:
    """All parameters end to end in one, as ZeRO holds them."""

    sharded = True

    def __init__(self, network: nn.Module, moments: str) -> None:
        named = [(name, p.detach()) for name, p in network.named_parameters()]
        home = nn.Parameter(torch.cat([p.reshape(-1) for _, p in named]))
        self.fragments, offset = [], 0
        for name, p in named:
            self.fragments.append(Fragment(name, tuple(p.shape), 0, home, offset, p.numel()))
            offset += p.numel()
        self.home, self.published = home, 0
        self.optimizer = AdamW(
            [{"params": [home]}], rate=1e-2, betas=(0.9, 0.96), epsilon=1e-8,
            moments=moments,  # type: ignore[arg-type]
        )  # fmt: skip

    def update(self, seed: int) -> None:
        """With a made-up gradient, larger for some parameters than for others."""
        draw = torch.Generator().manual_seed(seed)
        gradient = torch.randn(len(self.home), generator=draw)
        for number, one in enumerate(self.fragments):
            one.of(gradient).mul_(0.6 + 0.1 * (number % 5))
        self.home.grad = gradient
        self.optimizer.step()

    def publish(self) -> None:
        self.published += 1

    def held(self) -> list[Tensor]:
        whole = (0, len(self.home))
        return [self.home.detach(), *(self.optimizer.read(self.home, m, whole) for m in MOMENTS)]


def _keeper(processes: Processes, moments: str) -> Any:
    torch.manual_seed(0)
    network = Layer(8, 2)
    engine = _OneHome(network, moments)
    average = Average(engine.fragments, 0.9)
    blocks = Blocks.find(network)
    return Keeper(engine, processes, blocks, Exchange(None, 1), average, sum_errors=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("moments", ["fp32", "bf16", "int8"])
def test_weights_moments_and_average_come_back_to_the_bit(
    tmp_path: Path, processes: Processes, moments: str
) -> None:
    keeper, other = _keeper(processes, moments), _keeper(processes, moments)
    for update in range(5):
        keeper.engine.update(update)
        keeper.average.update()
    for name, tensors in keeper.files().items():
        save_file(tensors, tmp_path / name)
    other.load(tmp_path, 5, 1)
    assert other.engine.published == 1
    for update in (5, 6):
        for found, wanted in zip(other.engine.held(), keeper.engine.held(), strict=True):
            assert torch.equal(found, wanted)
        pairs = zip(other.average.values, keeper.average.values, strict=True)
        assert all(torch.equal(found, wanted) for found, wanted in pairs)
        for one in (keeper, other):
            one.engine.update(update)
            one.average.update()


def test_what_is_kept_are_copies(processes: Processes) -> None:
    """The training goes on while a thread writes them."""
    keeper = _keeper(processes, "fp32")
    keeper.engine.update(0)
    (shard,) = keeper.files().values()
    before = {key: value.clone() for key, value in shard.items()}
    keeper.engine.update(1)
    keeper.average.update()
    assert all(torch.equal(shard[key], value) for key, value in before.items())
    kinds = {key.split("/")[0] for key in shard}
    assert kinds == {"weight", "average", *MOMENTS}


def test_what_leaves_the_training_is_the_average(tmp_path: Path, processes: Processes) -> None:
    keeper = _keeper(processes, "fp32")
    keeper.engine.update(0)
    keeper.average.update()
    written: dict[str, Tensor] = {}
    write_result(keeper, tmp_path / "result", keeper.blocks.shapes, written.update)
    for one, value in zip(keeper.engine.fragments, keeper.average.values, strict=True):
        assert torch.equal(written[one.name], value.view(one.shape))
        assert not torch.equal(value, one.weight)
    assert not (tmp_path / "result").exists()
