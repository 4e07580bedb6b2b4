"""What draws image codes for captions, whatever network it is and however it samples.

A generator is a line in `SAMPLERS`: the name of its network's module and the function that samples
from it. Stages know `load_generator` and nothing else.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from model_zoo.weights import load_network, read_header
from schemas.base import Frozen

SAMPLERS = {"dalle": "model_zoo.sampler:sample"}


class Sampling(Frozen):
    """How codes are drawn; the paper samples at temperature 1 from all codes."""

    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest code every time."""
    top_k: int | None = Field(default=None, gt=0)
    """Draw from the k likeliest codes only."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the fewest codes that have this much of the probability together."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Classifier-free guidance, for networks trained with `caption_drop`: how many times the way
    from the logits without the caption to those with it is gone. 1 is none, and half the work."""


AS_IN_PAPER = Sampling()


class Sampler(Protocol):
    """Draws int64 [P, C, h, w] for captions int [P, L] (-1: padding) and seeds int64 [P, C]."""

    def __call__(
        self, network: nn.Module, tokens: Tensor, seeds: Tensor, sampling: Sampling
    ) -> Tensor:
        """Draw."""
        ...


@dataclass(frozen=True)
class Generator:
    """A trained network and the way to sample from it."""

    name: str
    network: nn.Module
    text_length: int
    _sampler: Sampler

    def draw(self, tokens: Tensor, seeds: Tensor, sampling: Sampling = AS_IN_PAPER) -> Tensor:
        """Codes int64 [P, C, h, w] for captions int [P, text_length] and seeds int64 [P, C].

        A candidate depends on its caption and its seed, not on those beside it.
        """
        return self._sampler(self.network, tokens, seeds, sampling)


def load_generator(path: Path, device: torch.device | str = "cpu") -> Generator:
    """The generator in a file.

    Raises:
        ValueError: if the file holds a network that draws no codes.
    """
    name, config = read_header(path)
    if name not in SAMPLERS:
        raise ValueError(f"{path}: network {name!r} is no generator; known are {sorted(SAMPLERS)}")
    module, function = SAMPLERS[name].split(":")
    sampler = cast(Sampler, getattr(importlib.import_module(module), function))
    return Generator(name, load_network(path, device), config["text_length"], sampler)
