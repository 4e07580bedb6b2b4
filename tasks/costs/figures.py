"""A figure of a plan: a number, its unit, and how it comes about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.costs.hardware import Hardware

Unit = Literal[
    "parameters",
    "GPUs",
    "bytes",
    "FLOP",
    "s",
    "GPU hours",
    "USD",
    "share",
    "times",
    "tokens/s",
    "bit/s",
]

PASSES = 3  # forward, and backward to inputs and to weights


@dataclass(frozen=True)
class Figure:
    """One line of a plan."""

    name: str
    value: float
    unit: Unit
    how: str
    """The formula, in words; what is assumed is said to be."""


@dataclass(frozen=True)
class Section:
    """Figures that belong together, and what follows from them."""

    title: str
    figures: tuple[Figure, ...]
    verdict: str = ""

    def value(self, name: str) -> float:
        """The value of a figure.

        Raises:
            KeyError: if there is none of that name.
        """
        found = {one.name: one.value for one in self.figures}
        return found[name]


def total(name: str, figures: list[Figure], how: str = "their sum") -> Figure:
    """The sum of figures of one unit."""
    return Figure(name, sum(one.value for one in figures), figures[0].unit, how)


def rent(name: str, seconds: float, how: str, hardware: Hardware) -> list[Figure]:
    """How long something takes, and what the GPUs cost meanwhile."""
    hours = hardware.all * seconds / 3600
    assumed = "assumed " if hardware.price is None else ""
    return [
        Figure(name, seconds, "s", how),
        Figure(f"{name}, GPU hours", hours, "GPU hours", f"{hardware.all:,} GPUs"),
        Figure(f"{name}, cost", hours * hardware.hour, "USD",
               f"{assumed}{hardware.hour:g} dollars a GPU hour"),
    ]  # fmt: skip
