"""Draw image codes from the transformer, one after the other, with cached keys and values.

The caption is computed once for each prompt and shared by all of its candidates; the candidates'
own keys and values go into a cache of fixed size, of which each layer reads only the codes that its
mask allows. The codes are those that the network would give without any cache.

Shapes: P prompts, C candidates of each, R = P·C rows, L caption positions, S = L + 1 positions
before the image, N = h·w codes, A heads, E = width / A.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from model_zoo.dalle import PADDING, Attention, Dalle
from model_zoo.generators import AS_IN_PAPER, Sampling

ROWS = 512
"""Rows that go through the network together: 64 take twice as long a row, and more more memory."""

# What an index of cached codes may be: a run of them (read in place), or any of them (copied).
Places = slice | Tensor


@torch.no_grad()
def sample(
    network: Dalle, tokens: Tensor, seeds: Tensor, sampling: Sampling = AS_IN_PAPER
) -> Tensor:
    """Codes, int64 [P, C, h, w], for captions and the seed of each candidate.

    A candidate depends on its caption and its seed only, not on what is drawn beside it (to
    rounding: products over different numbers of rows may differ in the last bit).

    Args:
        network: in fp32.
        tokens: int [P, L], -1 where a caption is shorter.
        seeds: int64 [P, C].
        sampling: temperature, truncation and guidance; the paper's are 1, none and 1.

    Raises:
        ValueError: if captions or seeds are not of these shapes, or for guidance of a network that
            was not trained without captions.
    """
    _check(network, tokens, seeds, sampling)
    device = network.start.device
    drawn = seeds.new_empty(*seeds.shape, network.config.codes)
    for prompts, candidates in _batches(*seeds.shape):
        uniforms = _uniforms(seeds[prompts, candidates], network.config.codes).to(device)
        codes = _Pass(network, tokens[prompts].to(device).long(), uniforms, sampling).draw()
        drawn[prompts, candidates] = codes.to(drawn.device)
    return drawn.unflatten(2, (network.config.grid_height, network.config.grid_width))


def _check(network: Dalle, tokens: Tensor, seeds: Tensor, sampling: Sampling) -> None:
    if sampling.guidance != 1 and not network.config.caption_drop:
        raise ValueError(
            f"guidance={sampling.guidance:g}: the network was trained with caption_drop=0, so it"
            " cannot draw without a caption; train it with caption_drop, or leave guidance at 1"
        )
    length = network.config.text_length
    if tokens.ndim != 2 or tokens.shape[1] != length:
        raise ValueError(f"tokens: shape {tuple(tokens.shape)}, but the network's is [P, {length}]")
    if seeds.ndim != 2 or len(seeds) != len(tokens):
        wanted = f"[{len(tokens)}, candidates]"
        raise ValueError(f"seeds: shape {tuple(seeds.shape)}, but the captions' is {wanted}")


def _batches(prompts: int, candidates: int) -> Iterator[tuple[slice, slice]]:
    """Prompts and candidates that go together, at most ROWS rows."""
    together = max(1, ROWS // max(1, candidates))
    for first in range(0, prompts, together):
        for start in range(0, candidates, ROWS):
            yield slice(first, first + together), slice(start, start + ROWS)


def _uniforms(seeds: Tensor, codes: int) -> Tensor:
    """A number in [0, 1) for each code of each candidate, float64 [P, C, N], by its seed alone."""
    drawn = [
        torch.rand(codes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds.flatten().tolist()
    ]
    return torch.stack(drawn).view(*seeds.shape, codes)


class _Pass:
    """One batch on its way through the network."""

    def __init__(
        self, network: Dalle, tokens: Tensor, uniforms: Tensor, sampling: Sampling
    ) -> None:
        self.network = network
        self.guided = sampling.guidance != 1
        # Guided, each prompt has a second row of candidates: the same codes without a caption.
        self.tokens = (
            torch.cat([tokens, torch.full_like(tokens, PADDING)]) if self.guided else tokens
        )
        self.uniforms = uniforms
        self.sampling = sampling
        self.before = network.config.text_length + 1
        self.caches = [
            _Cache(layer.attention.branch, mask, self.before, uniforms.shape[1])
            for layer, mask in zip(network.each_layer(), network.masks(), strict=True)
        ]

    def draw(self) -> Tensor:
        """Codes int64 [P, C, N]."""
        candidates, length = self.uniforms.shape[1:]
        logits = self._caption()[:, None].expand(-1, candidates, -1)
        codes = [self._choose(logits, 0)]
        for place in range(length - 1):
            latest = codes[-1].repeat(1 + self.guided, 1)
            logits = self._code(latest.view(-1, 1), place)
            codes.append(self._choose(logits.unflatten(0, (-1, candidates)), place + 1))
        return torch.stack(codes, dim=2)

    def _caption(self) -> Tensor:
        """Fill the caches' shared part; the logits of the first code, [P, vocabulary]."""
        x = self.network.embed_text(self.tokens)
        for layer, cache in zip(self.network.each_layer(), self.caches, strict=True):
            x = x + cache.caption(x)
            x = layer.feedforward(x)
        return self.network.image_head(self.network.norm(x[:, -1]))

    def _code(self, codes: Tensor, place: int) -> Tensor:
        """Take in the code of a place, int64 [R, 1]; the logits of the next, [R, vocabulary]."""
        x = self.network.embed_codes(codes, place)
        for layer, cache in zip(self.network.each_layer(), self.caches, strict=True):
            x = x + cache.code(x, place)
            x = layer.feedforward(x)
        return self.network.image_head(self.network.norm(x[:, 0]))

    def _choose(self, logits: Tensor, place: int) -> Tensor:
        if self.guided:
            captioned, free = logits.chunk(2)
            logits = torch.lerp(free, captioned, self.sampling.guidance)
        return choose(logits, self.uniforms[..., place], self.sampling)


class _Cache:
    """Keys and values of one layer: the captions' [P, A, S, E], the candidates' [P·C, A, N, E]."""

    def __init__(self, attention: Attention, mask: Tensor, before: int, candidates: int) -> None:
        self.attention = attention
        self.candidates = candidates
        self.caption_mask = mask[:before, :before]
        self.places = [_places(row[before:]) for row in mask[before:]]
        self.length = len(self.places)

    def caption(self, x: Tensor) -> Tensor:
        """Attention within the captions, [P, S, D]; its keys and values are kept."""
        q, self.caption_keys, self.caption_values = self.attention.project(x)
        heads = torch.nn.functional.scaled_dot_product_attention(
            q, self.caption_keys, self.caption_values, attn_mask=self.caption_mask
        )
        rows = (len(x) * self.candidates, q.shape[1], self.length, q.shape[3])
        self.keys, self.values = q.new_empty(rows), q.new_empty(rows)
        return self.attention.merge(heads)

    def code(self, x: Tensor, place: int) -> Tensor:
        """Attention of one code of each row, [R, 1, D], to caption and allowed codes."""
        q, k, v = self.attention.project(x)
        self.keys[:, :, place], self.values[:, :, place] = k[:, :, 0], v[:, :, 0]
        allowed = self.places[place]
        keys, values = self.keys[:, :, allowed], self.values[:, :, allowed]
        shared = self._by_prompt(q)
        scores = torch.cat(
            [
                self._by_row(shared @ self.caption_keys.transpose(2, 3)),
                q @ keys.transpose(2, 3),
            ],
            dim=3,
        )
        weights = torch.softmax(scores * q.shape[3] ** -0.5, dim=3)
        caption, image = weights.split([self.caption_keys.shape[2], keys.shape[2]], dim=3)
        heads = self._by_row(self._by_prompt(caption) @ self.caption_values) + image @ values
        return self.attention.merge(heads)

    def _by_prompt(self, x: Tensor) -> Tensor:
        """[P·C, A, 1, n] to [P, A, C, n], so that one product serves all of a prompt's rows."""
        return x.unflatten(0, (-1, self.candidates)).squeeze(3).transpose(1, 2)

    def _by_row(self, x: Tensor) -> Tensor:
        """The way back."""
        return x.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _places(allowed: Tensor) -> Places:
    found = allowed.nonzero()[:, 0]
    first, last = int(found[0]), int(found[-1])
    return slice(first, last + 1) if last - first + 1 == len(found) else found


def choose(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Draw from softmax(logits / temperature), truncated, by inverting the distribution.

    Args:
        logits: [..., vocabulary].
        uniforms: in [0, 1), [...].

    Returns:
        int64 [...].
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    chances = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    chances = _truncate(chances, sampling)
    below = chances.cumsum(-1)
    threshold = (uniforms * below[..., -1]).unsqueeze(-1)
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
