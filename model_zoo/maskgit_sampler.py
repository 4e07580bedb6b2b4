"""Draw image codes with MaskGIT: all masked codes at once, of which the most confident stay.

Iterative decoding as in section 3.2: in step t of T every masked code is drawn, the ⌈cos(πt/2T)·M⌉
least confident of them are masked again (M codes were masked in the beginning), and the last step
keeps all. Confidence is the log-probability of the drawn code plus gumbel noise, whose factor, the
choice temperature, falls to 0 over the steps. Starting from a picture of which a part is masked,
the same fills in that part.

Choices where the paper is silent: each step leaves at least one code less than the one before, so a
small part is done in fewer steps; probabilities are those at temperature 1 (guided, not truncated),
whatever temperature the codes are drawn at.

Shapes: P prompts, C candidates of each, R = P·C rows, L caption positions, N = h·w codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from model_zoo.draws import UNKNOWN, check_request, choose, known_codes, uniforms
from model_zoo.generators import Sampling, Watch
from model_zoo.maskgit import MASK, PADDING, Maskgit

ROWS = 256
"""Rows that go through the network together; more are no faster a row, and take more memory."""


class MaskgitSampling(Sampling):
    """What MaskGIT knows beside temperature, truncation and guidance."""

    steps: int = Field(default=12, gt=0)
    """Passes through the network (section 4.1 finds 8 to 12 best)."""
    choice_temperature: float = Field(default=4.5, ge=0, allow_inf_nan=False)
    """Factor of the noise on confidence before the first step; 0 always keeps the likeliest."""


AS_PUBLISHED = MaskgitSampling()


@torch.no_grad()
def sample(
    network: Maskgit, tokens: Tensor, seeds: Tensor, sampling: MaskgitSampling = AS_PUBLISHED,
    given: Tensor | None = None, watch: Watch | None = None,
) -> Tensor:  # fmt: skip
    """Codes, int64 [P, C, h, w], for captions and the seed of each candidate.

    A candidate depends on its caption and its seed only, not on what is drawn beside it (to
    rounding: products over different numbers of rows may differ in the last bit).

    Args:
        network: in fp32.
        tokens: int [P, L], -1 where a caption is shorter.
        seeds: int64 [P, C].
        sampling: steps and choice temperature, beside what all generators know.
        given: int64 [P, h, w], codes that stay as they are, -1 where one is to be drawn; every code
            that is drawn is drawn in the knowledge of all of them (inpainting).
        watch: is told all codes, int64 [P, C, h, w], -1 where not drawn yet, after each step. Codes
            come wherever the network is surest, not row by row.

    Raises:
        ValueError: if captions, seeds or given codes are not of these shapes, or for guidance of a
            network that was not trained without captions.
    """
    config, device = network.config, network.head.weight.device
    check_request(config.text_length, config.caption_drop, tokens, seeds, sampling)
    grid = (config.grid_height, config.grid_width)
    known = known_codes(given, len(tokens), grid, config.image_vocabulary).flatten(1)
    rows = [one.repeat_interleave(seeds.shape[1], dim=0) for one in (tokens.long(), known)]
    drawn = seeds.new_full((seeds.numel(), config.codes), UNKNOWN)
    whole = drawn.view(*seeds.shape, *grid)
    parts = (one.split(ROWS) for one in (*rows, seeds.flatten(), drawn))
    for texts, codes, of_rows, target in zip(*parts, strict=True):
        for step in _decode(network, texts.to(device), codes.to(device), of_rows, sampling):
            target.copy_(step)
            if watch:
                watch(whole)
    return whole


def _decode(
    network: Maskgit, tokens: Tensor, codes: Tensor, seeds: Tensor, sampling: MaskgitSampling
) -> Iterator[Tensor]:
    """Codes int64 [R, N] after each step; MASK stands where they are to be drawn."""
    numbers = uniforms(seeds, sampling.steps, 2, codes.shape[1]).to(codes.device)
    start = (codes == MASK).sum(dim=1)
    for step in range(sampling.steps):
        masked = codes == MASK
        logits = _logits(network, tokens, codes, sampling.guidance)
        chosen = choose(logits, numbers[:, step, 0], sampling)
        chance = logits.double().log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
        noise = sampling.choice_temperature * (1 - (step + 1) / sampling.steps)
        confidence = chance + noise * _gumbel(numbers[:, step, 1])
        left = masked_after(step + 1, sampling.steps, start, masked.sum(dim=1))
        order = confidence.masked_fill(~masked, torch.inf).argsort(dim=1, stable=True)
        place = order.argsort(dim=1)
        codes = chosen.where(masked, codes).masked_fill(place < left[:, None], MASK)
        yield codes


def masked_after(step: int, steps: int, start: Tensor, masked: Tensor) -> Tensor:
    """How many codes stay masked after a step (from 1): ⌈cos(π/2 · step/steps) · start⌉.

    Args:
        start: int64 [R], masked before the first step.
        masked: int64 [R], masked before this step; at least one of them is drawn.
    """
    if step == steps:
        return torch.zeros_like(masked)
    wanted = (math.cos(math.pi / 2 * step / steps) * start.double()).ceil().long()
    return torch.minimum(wanted, masked - 1).clamp_min(0)


def _logits(network: Maskgit, tokens: Tensor, codes: Tensor, guidance: float) -> Tensor:
    if guidance == 1:
        return network(tokens, codes)
    both = torch.cat([tokens, torch.full_like(tokens, PADDING)])
    captioned, free = network(both, codes.repeat(2, 1)).chunk(2)
    return torch.lerp(free, captioned, guidance)


def _gumbel(numbers: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(numbers.clamp_min(2.0**-54)))
