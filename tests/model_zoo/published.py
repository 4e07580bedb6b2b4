"""Files of the structure in which the dVAE was published: pickled modules of a package `dall_e`.

The classes exist while a file is written, and then no more: what reads it must not need them.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv2d(nn.Module):
    def __init__(self, n_in: int, n_out: int, kw: int) -> None:
        super().__init__()
        self.kw = kw
        self.w = nn.Parameter(torch.randn(n_out, n_in, kw, kw) / (n_in * kw**2) ** 0.5)
        self.b = nn.Parameter(torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...], n_layers: int) -> None:
        super().__init__()
        self.post_gain = 1 / n_layers**2
        self.id_path = Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        widths = [n_in, *[n_out // 4] * 3, n_out]
        layers: list[tuple[str, nn.Module]] = []
        for i, kernel in enumerate(kernels):
            layers += [(f"relu_{i + 1}", nn.ReLU())]
            layers += [(f"conv_{i + 1}", Conv2d(widths[i], widths[i + 1], kernel))]
        self.res_path = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


class Coder(nn.Module):
    """Encoder or decoder: `ends` are the kernels of its first and last convolution."""

    def __init__(
        self, n_in: int, widths: tuple[int, ...], n_first: int, n_out: int, stem: int,
        kernels: tuple[int, ...], between: nn.Module, blocks: int,
    ) -> None:  # fmt: skip
        super().__init__()
        parts: list[tuple[str, nn.Module]] = [("input", Conv2d(n_in, n_first, stem))]
        before = n_first
        for number, width in enumerate(widths, 1):
            group: list[tuple[str, nn.Module]] = []
            for block in range(blocks):
                made = Block(before, width, kernels, len(widths) * blocks)
                group.append((f"block_{block + 1}", made))
                before = width
            if number < len(widths):
                group.append(("between", between))
            parts.append((f"group_{number}", nn.Sequential(OrderedDict(group))))
        end = OrderedDict([("relu", nn.ReLU()), ("conv", Conv2d(before, n_out, 1))])
        parts.append(("output", nn.Sequential(end)))
        self.blocks = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


@contextmanager
def _published() -> Iterator[None]:
    """The classes under the name that the published files know them by."""
    package = ModuleType("dall_e")
    before = {one: one.__module__ for one in (Conv2d, Block, Coder)}
    for one in before:
        one.__module__ = "dall_e"
        setattr(package, one.__qualname__, one)
    sys.modules["dall_e"] = package
    try:
        yield
    finally:
        del sys.modules["dall_e"]
        for one, module in before.items():
            one.__module__ = module


def write_published(folder: Path, codes: int = 24) -> tuple[Coder, Coder]:
    """Write `encoder.pkl` and `decoder.pkl`; the two modules that are in them."""
    torch.manual_seed(0)
    encoder = Coder(3, (8, 16, 32, 64), 8, codes, 7, (3, 3, 3, 1), nn.MaxPool2d(2), 2)
    decoder = Coder(codes, (64, 32, 16, 8), 4, 6, 1, (1, 3, 3, 3), nn.Upsample(scale_factor=2), 2)
    with _published():
        torch.save(encoder, folder / "encoder.pkl")
        torch.save(decoder, folder / "decoder.pkl")
    return encoder, decoder
