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
import torch.nn.functional as F
from torch import Tensor

from model_zoo.dalle import PADDING, Dalle
from model_zoo.draws import UNKNOWN, check_request, choose, known_codes, uniforms
from model_zoo.generators import AS_IN_PAPER, Sampling, Watch
from model_zoo.transformer import Layer

ROWS = 512
"""Rows that go through the network together: 64 take twice as long a row, and more more memory."""

# What an index of cached codes may be: a run of them (read in place), or any of them (copied).
Places = slice | Tensor


@torch.no_grad()
def sample(
    network: Dalle, tokens: Tensor, seeds: Tensor, sampling: Sampling = AS_IN_PAPER,
    given: Tensor | None = None, watch: Watch | None = None,
) -> Tensor:  # fmt: skip
    """Codes, int64 [P, C, h, w], for captions and the seed of each candidate.

    A candidate depends on its caption and its seed only, not on what is drawn beside it (to
    rounding: products over different numbers of rows may differ in the last bit).

    Args:
        network: in fp32.
        tokens: int [P, L], -1 where a caption is shorter.
        seeds: int64 [P, C].
        sampling: temperature, truncation and guidance; the paper's are 1, none and 1.
        given: int64 [P, h, w], codes of each prompt's candidates that are there already, -1 where
            one is to be drawn. A code is drawn in the knowledge of those before it in raster order,
            so the top rows of a picture bear on what comes below (section 3, image-to-image).
        watch: is told all codes, int64 [P, C, h, w], -1 where not drawn yet, after each row.

    Raises:
        ValueError: if captions, seeds or given codes are not of these shapes, or for guidance of a
            network that was not trained without captions.
    """
    config = network.config
    check_request(config.text_length, config.caption_drop, tokens, seeds, sampling)
    grid = (config.grid_height, config.grid_width)
    known = known_codes(given, len(tokens), grid, config.image_vocabulary)
    device = network.start.device
    drawn = seeds.new_full((*seeds.shape, config.codes), UNKNOWN)
    for prompts, candidates in _batches(*seeds.shape):
        numbers = uniforms(seeds[prompts, candidates], config.codes).to(device)
        texts = tokens[prompts].to(device).long()
        run = _Pass(network, texts, numbers, sampling, known[prompts].flatten(1).to(device))
        for place, codes in enumerate(run.draw()):
            drawn[prompts, candidates, place] = codes.to(drawn.device)
            if watch and (place + 1) % config.grid_width == 0:
                watch(drawn.unflatten(2, grid))
    return drawn.unflatten(2, grid)


def _batches(prompts: int, candidates: int) -> Iterator[tuple[slice, slice]]:
    """Prompts and candidates that go together, at most ROWS rows."""
    together = max(1, ROWS // max(1, candidates))
    for first in range(0, prompts, together):
        for start in range(0, candidates, ROWS):
            yield slice(first, first + together), slice(start, start + ROWS)


class _Pass:
    """One batch on its way through the network."""

    def __init__(
        self, network: Dalle, tokens: Tensor, uniforms: Tensor, sampling: Sampling, known: Tensor
    ) -> None:
        self.network = network
        self.known = known
        self.guided = sampling.guidance != 1
        # Guided, each prompt has a second row of candidates: the same codes without a caption.
        self.tokens = (
            torch.cat([tokens, torch.full_like(tokens, PADDING)]) if self.guided else tokens
        )
        self.uniforms = uniforms
        self.sampling = sampling
        self.before = network.config.text_length + 1
        self.layers = [
            _Layer(layer, mask, self.before, uniforms.shape[1])
            for layer, mask in zip(network.each_layer(), network.masks(), strict=True)
        ]

    def draw(self) -> Iterator[Tensor]:
        """The codes of one place after the other, int64 [P, C]."""
        candidates, length = self.uniforms.shape[1:]
        logits = self._caption()[:, None].expand(-1, candidates, -1)
        codes = self._choose(logits, 0)
        yield codes
        for place in range(length - 1):
            latest = codes.repeat(1 + self.guided, 1)
            logits = self._code(latest.view(-1, 1), place)
            codes = self._choose(logits.unflatten(0, (-1, candidates)), place + 1)
            yield codes

    def _caption(self) -> Tensor:
        """Take in the captions; the logits of the first code, [P, vocabulary]."""
        x = self.network.embed_text(self.tokens)
        for layer in self.layers:
            x = layer.caption(x)
        return self.network.image_head(self.network.norm(x[:, -1]))

    def _code(self, codes: Tensor, place: int) -> Tensor:
        """Take in the code of a place, int64 [R, 1]; the logits of the next, [R, vocabulary]."""
        x = self.network.embed_codes(codes, place)[:, 0]
        for layer in self.layers:
            x = layer.code(x, place)
        return self.network.image_head(self.network.norm(x))

    def _choose(self, logits: Tensor, place: int) -> Tensor:
        if self.guided:
            captioned, free = logits.chunk(2)
            logits = torch.lerp(free, captioned, self.sampling.guidance)
        known = self.known[:, place, None]
        return known.where(known >= 0, choose(logits, self.uniforms[..., place], self.sampling))


class _Layer:
    """One layer with the keys and values that it has seen: the captions' and the candidates'.

    Few rows at a time are bound by reading the weights. A product with weights that lie as
    [inputs, outputs] takes two thirds of the time of torch's order (4 rows, 256 x 1024, one thread:
    153 and 218 µs), so copies of that order are used.
    """

    def __init__(self, layer: Layer, mask: Tensor, before: int, candidates: int) -> None:
        self.layer = layer
        self.attention, self.feedforward = layer.attention.branch, layer.feedforward.branch
        self.candidates = candidates
        self.caption_mask = mask[:before, :before]
        self.places = [_places(row[before:]) for row in mask[before:]]
        linears = (
            self.attention.qkv, self.attention.out, self.feedforward.expand, self.feedforward.out,
        )  # fmt: skip
        self.weights = [(one.bias, one.weight.t().contiguous()) for one in linears]

    def caption(self, x: Tensor) -> Tensor:
        """The captions' pass, [P, S, D]; keys [P·A, E, S] and values [P·A, S, E] are kept."""
        q, k, v = self.attention.project(x)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=self.caption_mask)
        self.caption_keys = k.transpose(2, 3).flatten(0, 1).contiguous()
        self.caption_values = v.flatten(0, 1).contiguous()
        rows = (len(x) * self.candidates, q.shape[1], len(self.places), q.shape[3])
        self.keys, self.values = q.new_empty(rows), q.new_empty(rows)
        hidden: Tensor = self.layer.feedforward(x + self.attention.merge(heads))
        return hidden

    def code(self, x: Tensor, place: int) -> Tensor:
        """The pass of one code of each row, [R, D]."""
        qkv, out, expand, shrink = self.weights
        heads = self.attend(torch.addmm(qkv[0], self.attention.norm(x), qkv[1]), place)
        x = x + torch.addmm(out[0], heads, out[1])
        wide = F.gelu(torch.addmm(expand[0], self.feedforward.norm(x), expand[1]))
        return x + torch.addmm(shrink[0], wide, shrink[1])

    def attend(self, qkv: Tensor, place: int) -> Tensor:
        """Heads [R, D] of projections [R, 3·D]: attention to caption and allowed codes."""
        rows, heads, _, features = self.keys.shape
        q, k, v = qkv.view(rows, 3, heads, features).unbind(1)
        self.keys[:, :, place], self.values[:, :, place] = k, v
        allowed = self.places[place]
        keys = self.keys[:, :, allowed].flatten(0, 1)
        values = self.values[:, :, allowed].flatten(0, 1)
        # A prompt's candidates look at its caption in one product.
        to_caption = torch.bmm(self._by_prompt(q), self.caption_keys)
        to_codes = torch.bmm(q.reshape(rows * heads, 1, features), keys.transpose(1, 2))
        scores = torch.cat([self._by_row(to_caption), to_codes.view(rows, heads, -1)], dim=2)
        weights = torch.softmax(scores * features**-0.5, dim=2)
        caption, image = weights.split([self.caption_keys.shape[2], keys.shape[1]], dim=2)
        of_caption = torch.bmm(self._by_prompt(caption), self.caption_values)
        of_codes = torch.bmm(image.reshape(rows * heads, 1, -1), values)
        seen = self._by_row(of_caption) + of_codes.view(rows, heads, features)
        return seen.flatten(1)

    def _by_prompt(self, x: Tensor) -> Tensor:
        """[P·C, A, n] to [P·A, C, n]."""
        return x.unflatten(0, (-1, self.candidates)).transpose(1, 2).flatten(0, 1)

    def _by_row(self, x: Tensor) -> Tensor:
        """The way back."""
        return x.unflatten(0, (-1, self.keys.shape[1])).transpose(1, 2).flatten(0, 1)


def _places(allowed: Tensor) -> Places:
    """Indices of the allowed codes: evenly spaced ones as a slice, which copies nothing."""
    found = allowed.nonzero()[:, 0]
    steps = found.diff().unique()
    if len(steps) > 1:
        return found
    step = int(steps[0]) if len(steps) else 1
    return slice(int(found[0]), int(found[-1]) + 1, step)
