"""Draws from distributions over codes that every generator makes alike: by the candidate's seed.

A candidate's random numbers come from its seed alone and a distribution is inverted, so that a
candidate is the same picture whatever is drawn beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_zoo.generators import Sampling

UNKNOWN = -1  # in place of a code that is not there yet


def check_request(
    text_length: int, caption_drop: float, tokens: Tensor, seeds: Tensor, sampling: Sampling
) -> None:  # fmt: skip
    """Refuse what a network cannot draw.

    Args:
        text_length, caption_drop: the network's, from its configuration.
        tokens: should be int [P, text_length].
        seeds: should be int64 [P, C].

    Raises:
        ValueError: if captions or seeds are not of these shapes, or for guidance of a network that
            was not trained without captions.
    """
    if sampling.guidance != 1 and not caption_drop:
        raise ValueError(
            f"guidance={sampling.guidance:g}: the network was trained with caption_drop=0, so it"
            " cannot draw without a caption; train it with caption_drop, or leave guidance at 1"
        )
    if tokens.ndim != 2 or tokens.shape[1] != text_length:
        found, wanted = tuple(tokens.shape), f"[P, {text_length}]"
        raise ValueError(f"tokens: shape {found}, but the network's is {wanted}")
    if seeds.ndim != 2 or len(seeds) != len(tokens):
        wanted = f"[{len(tokens)}, candidates]"
        raise ValueError(f"seeds: shape {tuple(seeds.shape)}, but the captions' is {wanted}")


def known_codes(
    given: Tensor | None, prompts: int, grid: tuple[int, int], vocabulary: int
) -> Tensor:
    """Codes that are there before any is drawn, int64 [P, h, w], UNKNOWN where there is none.

    Raises:
        ValueError: for codes of another shape, or that the network does not know.
    """
    shape = (prompts, *grid)
    if given is None:
        return torch.full(shape, UNKNOWN)
    if tuple(given.shape) != shape:
        raise ValueError(f"given: shape {tuple(given.shape)}, but the codes' is {shape}")
    least, most = int(given.min()), int(given.max())
    if least < UNKNOWN or most >= vocabulary:
        raise ValueError(
            f"given: codes from {least} to {most}, but the network's are below {vocabulary};"
            " they are of another image tokenizer"
        )
    return given.long()


def uniforms(seeds: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) for each candidate, float64 [*seeds.shape, *shape], by its seed alone."""
    numbers = torch.empty(*seeds.shape, *shape, dtype=torch.float64)
    each = numbers.flatten(0, seeds.ndim - 1)
    for row, seed in zip(each, seeds.flatten().tolist(), strict=True):
        row.uniform_(generator=torch.Generator().manual_seed(seed))
    return numbers


def choose(logits: Tensor, numbers: Tensor, sampling: Sampling) -> Tensor:
    """Draw from softmax(logits / temperature), truncated, by inverting the distribution.

    Args:
        logits: [..., vocabulary].
        numbers: uniform in [0, 1), [...].

    Returns:
        int64 [...].
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    chances = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    chances = _truncate(chances, sampling)
    below = chances.cumsum(-1)
    threshold = (numbers * below[..., -1]).unsqueeze(-1)
    # `right`: a code without any chance ends where it begins and is stepped over.
    return torch.searchsorted(below, threshold, right=True).squeeze(-1)


def _truncate(chances: Tensor, sampling: Sampling) -> Tensor:
    if sampling.top_k is not None and sampling.top_k < chances.shape[-1]:
        least = chances.topk(sampling.top_k, dim=-1).values[..., -1:]
        chances = chances.where(chances >= least, 0.0)
    if sampling.top_p is not None:
        ordered = chances.sort(dim=-1, descending=True).values
        mass = ordered.cumsum(-1) / ordered.sum(-1, keepdim=True)
        # The fewest codes whose chances reach top_p together.
        last = (mass < sampling.top_p).sum(-1, keepdim=True).clamp_max(chances.shape[-1] - 1)
        chances = chances.where(chances >= ordered.gather(-1, last), 0.0)
    return chances
