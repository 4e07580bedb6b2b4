"""The options of `tapir plan --cost`, and what they mean together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.costs.plan import Assumptions

_PANEL = "With --cost"


def _option(help: str, **bounds: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=_PANEL, **bounds)


Cost = Annotated[bool, typer.Option("--cost", help="Show what training the prior would take.")]
Machines = Annotated[int | None, _option("Machines (1).", min=1)]
Gpus = Annotated[int | None, _option("GPUs of a machine (8).", min=1)]
Gpu = Annotated[str | None, _option("Kind of GPU (a100_80gb).")]
Price = Annotated[float | None, _option("US dollars a GPU hour (assumed by kind).", min=0)]
Utilisation = Annotated[
    float | None, _option("Share of the GPUs' rate that is used (0.4).", min=0.001, max=1)
]
Speed = Annotated[
    float | None,
    _option("Measured on one such GPU in a short run; gives the utilisation.", min=0.001),
]
Rank = Annotated[
    int | None, _option("Of the compression of gradients between machines (declared).", min=1)
]
Batch = Annotated[int | None, _option("Samples a step (as declared).", min=1)]
Pairs = Annotated[int | None, _option("Pairs that are collected (1,000,000).", min=1)]
PictureKb = Annotated[float | None, _option("1,000 bytes a picture (100).", min=0.001)]
Mbit = Annotated[float | None, _option("Mbit a second of all downloads (1,000).", min=0.001)]


@dataclass(frozen=True)
class CostOptions:
    """What was typed; None where the default stands."""

    machines: int | None
    gpus: int | None
    gpu: str | None
    price: float | None
    utilisation: float | None
    tokens_per_second: float | None
    rank: int | None
    batch: int | None
    pairs: int | None
    picture_kb: float | None
    mbit: float | None

    def given(self) -> list[str]:
        """The options that were typed."""
        names = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in names]

    def assumptions(self) -> Assumptions:
        """What a plan takes for given.

        Raises:
            ValueError: for options that contradict each other or name what is not there.
        """
        from tasks.costs.hardware import Hardware
        from tasks.costs.plan import Assumptions

        if self.utilisation is not None and self.tokens_per_second is not None:
            raise ValueError("give either --utilisation or --tokens-per-second, which gives it")
        hardware = _kept(kind=self.gpu, machines=self.machines, gpus=self.gpus, price=self.price)
        others = _kept(
            utilisation=self.utilisation, tokens_per_second=self.tokens_per_second, rank=self.rank,
            batch=self.batch, pairs=self.pairs,
            picture_bytes=self.picture_kb and round(self.picture_kb * 1000),
            download=self.mbit and self.mbit * 1e6,
        )  # fmt: skip
        return Assumptions(hardware=Hardware(**hardware), **others)


def _kept(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
