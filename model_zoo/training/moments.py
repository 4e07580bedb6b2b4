"""How the optimiser's moments are stored: fp32, 16 bits, or 8 bits a number.

The paper kept them in 16-bit formats of its own. Here 16 bits are bf16, and 8 bits are blocks of
256 numbers over their largest, the square root of a number being rounded to its nearest code (the
fourth root of a variance), so that numbers far below the largest keep some precision. Both round to
nearest, so that a variance that moves by less than half a step an update stands still: prefer fp32
with betas[1] near 1. What they cost in loss is measured in docs/training.md.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
_BLOCK = 256
Span = tuple[int, int]
"""Offset and number of elements in a flat parameter."""


class Storage(Protocol):
    """One way to store a moment (`name` is one of MOMENTS) of a parameter."""

    def empty(self, name: str, parameter: Tensor) -> Any:
        """A moment of zeros."""
        ...

    def read(self, name: str, stored: Any, span: Span) -> Tensor:
        """A span of it, flat, fp32."""
        ...

    def write(self, name: str, stored: Any, span: Span, values: Tensor) -> None:
        """Set a span of it."""
        ...


def storage_of(kind: Literal["fp32", "bf16", "int8"]) -> Storage:
    """The storage that a configuration names."""
    return (
        Blocks8() if kind == "int8" else Plain(torch.float32 if kind == "fp32" else torch.bfloat16)
    )


class Plain:
    """As a tensor of the parameter's shape."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def empty(self, name: str, parameter: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros(parameter.shape, dtype=self.dtype, device=parameter.device)

    def read(self, name: str, stored: Tensor, span: Span) -> Tensor:
        """A view where the type is fp32."""
        return stored.view(-1).narrow(0, *span).float()

    def write(self, name: str, stored: Tensor, span: Span, values: Tensor) -> None:
        """Nothing to do for the view itself."""
        place = stored.view(-1).narrow(0, *span)
        if place.data_ptr() != values.data_ptr():
            place.copy_(values)


class Blocks8:
    """8-bit codes and the largest magnitude of each block of 256 numbers."""

    def empty(self, name: str, parameter: Tensor) -> dict[str, Tensor]:
        """Zeros."""
        numel, device = parameter.numel(), parameter.device
        kind = torch.int8 if name == "exp_avg" else torch.uint8
        blocks = -(-numel // _BLOCK)
        return {
            "codes": torch.zeros(numel, dtype=kind, device=device),
            "largest": torch.zeros(blocks, device=device),
        }

    def read(self, name: str, stored: dict[str, Tensor], span: Span) -> Tensor:
        """The numbers that the codes stand for."""
        low, high, first, last = _cover(span, len(stored["codes"]))
        values = _unpack(name, stored["codes"][low:high], stored["largest"][first:last])
        return values[span[0] - low :][: span[1]]

    def write(self, name: str, stored: dict[str, Tensor], span: Span, values: Tensor) -> None:
        """Round; the rest of blocks that the span cuts is rounded anew with it."""
        low, high, first, last = _cover(span, len(stored["codes"]))
        if high - low > span[1]:
            whole = _unpack(name, stored["codes"][low:high], stored["largest"][first:last])
            whole[span[0] - low :][: span[1]] = values
            values = whole
        codes, largest = _pack(name, values)
        stored["codes"][low:high] = codes
        stored["largest"][first:last] = largest


def _cover(span: Span, numel: int) -> tuple[int, int, int, int]:
    """The blocks that a span touches: their first and last elements, their numbers."""
    first, last = span[0] // _BLOCK, -(-(span[0] + span[1]) // _BLOCK)
    return first * _BLOCK, min(last * _BLOCK, numel), first, last


def _pack(name: str, values: Tensor) -> tuple[Tensor, Tensor]:
    padded = torch.nn.functional.pad(values, (0, -len(values) % _BLOCK)).view(-1, _BLOCK)
    largest = padded.abs().amax(1)
    unit = padded / torch.where(largest > 0, largest, 1.0)[:, None]
    if name == "exp_avg":
        codes = (unit.abs().sqrt() * 127).round() * unit.sign()
        return codes.view(-1)[: len(values)].to(torch.int8), largest
    # What is not zero must not become it: a step divides by the variance's root.
    codes = (unit.sqrt().sqrt() * 255).round().maximum((unit > 0).float())
    return codes.view(-1)[: len(values)].to(torch.uint8), largest


def _unpack(name: str, codes: Tensor, largest: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(codes, (0, -len(codes) % _BLOCK)).view(-1, _BLOCK).float()
    signed = name == "exp_avg"
    unit = (padded / 127) ** 2 * padded.sign() if signed else (padded / 255) ** 4
    return (unit * largest[:, None]).view(-1)[: len(codes)]
