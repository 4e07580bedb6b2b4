"""What draws image codes for captions, whatever network it is and however it samples.

A generator is a network whose module names its sampler, `SAMPLER = "model_zoo.MODULE:FUNCTION"`.
The function draws as `Sampler` says, and the type of its argument `sampling` says which settings it
knows; a setting of another generator is refused and never ignored. No list of generators stands
here: this file is part of what each of them draws, so a new one would cost all others their
pictures.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, get_type_hints

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from model_zoo.weights import load_network, read_header
from schemas.base import Frozen


class Sampling(Frozen):
    """How codes are drawn from their distributions; a generator that knows more extends it."""

    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest code every time."""
    top_k: int | None = Field(default=None, gt=0)
    """Draw from the k likeliest codes only."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the fewest codes that have this much of the probability together."""
    guidance: float = Field(default=1.0, ge=0, le=100)
    """Classifier-free guidance, for networks trained with `caption_drop`: how many times the way
    from the logits without the caption to those with it is gone. 1 is none, and half the work."""


Watch = Callable[[Tensor], None]
"""Is told all codes so far, int64 [P, C, h, w], -1 where none is drawn yet; what it was told stays.
The tensor is the sampler's own, to be read before the call returns."""

CACHE_GB = 4.0
"""Memory for keys and values, in 10^9 bytes, where nothing is said."""

AS_IN_PAPER = Sampling()  # DALL-E samples at temperature 1 from all codes


class Sampler(Protocol):
    """Draws int64 [P, C, h, w] for captions int [P, L] (-1: padding) and seeds int64 [P, C]."""

    def __call__(
        self, network: nn.Module, tokens: Tensor, seeds: Tensor, sampling: Frozen,
        given: Tensor | None = None, *, watch: Watch | None = ..., cache_gb: float = ...,
    ) -> Tensor:  # fmt: skip
        """Draw; `sampling` is of the type that the sampler's own signature says.

        `given`: int64 [P, h, w], codes that stay as they are, -1 where one is to be drawn.
        `watch` is called as the drawing goes on, and changes nothing; a sampler need not have it.
        `cache_gb` bounds what a sampler keeps of codes drawn before; who keeps nothing has none.
        """
        ...


@dataclass(frozen=True)
class Generator:
    """A trained network and the way to sample from it."""

    name: str
    network: nn.Module
    text_length: int

    def draw(
        self, tokens: Tensor, seeds: Tensor, sampling: Frozen | None = None,
        given: Tensor | None = None, watch: Watch | None = None, cache_gb: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Codes int64 [P, C, h, w] for captions int [P, text_length] and seeds int64 [P, C].

        A candidate depends on its caption and its seed, not on those beside it.

        Args:
            sampling: settings, of which those that were given count; None leaves all to the
                generator's own defaults.
            given: int64 [P, h, w], codes that stay as they are, -1 where one is to be drawn.
            watch: is told what is drawn so far, as often as the sampler has something new.
            cache_gb: memory that keys and values may take, of a sampler that keeps them; None is
                its own bound.

        Raises:
            ValueError: for a setting that is not one of this generator's.
        """
        declared = sampling.model_dump(exclude_unset=True) if sampling else {}
        settings = read_sampling(self.name, declared)
        sampler = _sampler(self.name)
        known = inspect.signature(sampler).parameters
        asked: dict[str, Any] = {"watch": watch, "cache_gb": cache_gb}
        more = {key: one for key, one in asked.items() if one is not None and key in known}
        drawn = sampler(self.network, tokens, seeds, settings, given, **more)
        if watch is not None and "watch" not in more:
            watch(drawn)  # all at once: this sampler has nothing to show before
        return drawn


def load_generator(path: Path, device: torch.device | str = "cpu") -> Generator:
    """The generator in a file.

    Raises:
        ValueError: if the file holds a network that draws no codes.
    """
    name, config = read_header(path)
    if sampler_of(name) is None:
        raise ValueError(f"{path}: network {name!r} is no generator: its module names no SAMPLER")
    return Generator(name, load_network(path, device), config["text_length"])


def sampler_of(name: str) -> str | None:
    """Where the sampler of a network is (`model_zoo.MODULE:FUNCTION`); None if it draws no codes.

    Raises:
        ModuleNotFoundError: if there is no such network.
    """
    found: str | None = getattr(importlib.import_module(f"model_zoo.{name}"), "SAMPLER", None)
    return found


def read_sampling(name: str, declared: Mapping[str, Any]) -> Frozen:
    """The settings of a generator from what was declared; the rest are its own defaults.

    Raises:
        ValueError: naming the setting that it does not know, or whose value makes no sense.
    """
    settings: type[Frozen] = get_type_hints(_sampler(name))["sampling"]
    try:
        # Through JSON, where strict still takes 1 for 1.0, but neither "1" nor `yes`.
        return settings.model_validate_json(json.dumps(dict(declared)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(settings.model_fields))
            raise ValueError(f"{key}: {name} has no such setting; it has {known}") from error
        raise ValueError(f"{key}: {first['msg']} (it is {first['input']!r})") from error


def _sampler(name: str) -> Sampler:
    named = sampler_of(name)
    assert named is not None, f"{name} is no generator"
    module, function = named.split(":")
    return cast(Sampler, getattr(importlib.import_module(module), function))
