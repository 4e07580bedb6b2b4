"""Draw image codes from the transformer, one after the other, with cached keys and values.

The caption is computed once for each prompt and shared by all of its candidates; the candidates'
own keys and values go into a cache (`model_zoo.code_cache`), of which each layer keeps and reads
only the codes that its mask allows. How many candidates go through the network together follows
from the memory that the caches may take. The codes are those that the network would give without
any cache.

Shapes: P prompts, C candidates of each, R = P·C rows (2·P·C with guidance), L caption positions,
S = L + 1 positions before the image, N = h·w codes, A heads, E = width / A.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.code_cache import Budget, CodeCache, Pattern
from model_zoo.dalle import PADDING, Dalle
from model_zoo.draws import UNKNOWN, check_request, choose, known_codes, uniforms
from model_zoo.generators import AS_IN_PAPER, CACHE_GB, Sampling, Watch
from model_zoo.transformer import Layer

TOGETHER = 512
"""Candidates that go through the network together at most: 64 take twice as long each."""


@torch.no_grad()
def sample(
    network: Dalle, tokens: Tensor, seeds: Tensor, sampling: Sampling = AS_IN_PAPER,
    given: Tensor | None = None, watch: Watch | None = None, cache_gb: float = CACHE_GB,
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
        cache_gb: memory, in 10^9 bytes, that keys, values and copies of matrices may take; it
            says how many candidates go together.

    Raises:
        ValueError: if captions, seeds or given codes are not of these shapes, for guidance of a
            network that was not trained without captions, or if one candidate takes more memory.
    """
    config = network.config
    check_request(config.text_length, config.caption_drop, tokens, seeds, sampling)
    grid = (config.grid_height, config.grid_width)
    known = known_codes(given, len(tokens), grid, config.image_vocabulary)
    device = network.start.device
    drawn = seeds.new_full((*seeds.shape, config.codes), UNKNOWN)
    plan = _Plan(network, sampling.guidance != 1, cache_gb)
    for prompts, candidates in plan.budget.batches(len(seeds), seeds.shape[1], cache_gb, TOGETHER):
        numbers = uniforms(seeds[prompts, candidates], config.codes).to(device)
        texts = tokens[prompts].to(device).long()
        run = _Pass(plan, texts, numbers, sampling, known[prompts].flatten(1).to(device))
        for place, codes in enumerate(run.draw()):
            drawn[prompts, candidates, place] = codes.to(drawn.device)
            if watch and (place + 1) % config.grid_width == 0:
                watch(drawn.unflatten(2, grid))
    return drawn.unflatten(2, grid)


class _Plan:
    """What all batches share: the layers' patterns and matrices, and what they take of memory."""

    def __init__(self, network: Dalle, guided: bool, cache_gb: float) -> None:
        self.network, self.guided = network, guided
        kinds, before = network.config.kinds, network.config.text_length + 1
        masks = dict(zip(kinds, network.masks(), strict=True))
        patterns = {kind: Pattern(mask, before) for kind, mask in masks.items()}
        self.patterns = [patterns[kind] for kind in kinds]
        linears = [_linears(layer) for layer in network.each_layer()]
        weights = [one.weight for of_layer in linears for one in of_layer]
        self.budget = Budget.of(self.patterns, before, network.config.width, weights, 1 + guided)
        self.budget.check(cache_gb, guided)
        # Few rows at a time are bound by reading the weights. A product with weights that lie as
        # [inputs, outputs] takes two thirds of the time of torch's order (4 rows, 256 x 1024, one
        # thread: 153 and 218 µs), so copies of that order are used where there is room.
        copied = self.budget.copies_matrices(cache_gb)
        self.weights = [
            [(one.bias, one.weight.t().contiguous() if copied else one.weight.t()) for one in layer]
            for layer in linears
        ]

    def layers(self, candidates: int) -> list[_Layer]:
        """The layers, with nothing seen yet."""
        parts = zip(self.network.each_layer(), self.weights, self.patterns, strict=True)
        return [_Layer(*part, candidates) for part in parts]


def _linears(layer: Layer) -> Sequence[nn.Linear]:
    attention, feedforward = layer.attention.branch, layer.feedforward.branch
    return attention.qkv, attention.out, feedforward.expand, feedforward.out


class _Pass:
    """One batch on its way through the network."""

    def __init__(
        self, plan: _Plan, tokens: Tensor, uniforms: Tensor, sampling: Sampling, known: Tensor
    ) -> None:
        self.network = plan.network
        self.known = known
        self.guided = plan.guided
        # Guided, each prompt has a second row of candidates: the same codes without a caption.
        self.tokens = (
            torch.cat([tokens, torch.full_like(tokens, PADDING)]) if self.guided else tokens
        )
        self.uniforms = uniforms
        self.sampling = sampling
        self.layers = plan.layers(uniforms.shape[1])

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
    """One layer with the keys and values that it has seen: the captions' and the candidates'."""

    def __init__(
        self, layer: Layer, weights: Sequence[tuple[Tensor, Tensor]], pattern: Pattern,
        candidates: int,
    ) -> None:  # fmt: skip
        self.layer, self.weights, self.pattern = layer, weights, pattern
        self.attention, self.feedforward = layer.attention.branch, layer.feedforward.branch
        self.candidates = candidates

    def caption(self, x: Tensor) -> Tensor:
        """The captions' pass, [P, S, D]; keys [P·A, E, S] and values [P·A, S, E] are kept."""
        q, k, v = self.attention.project(x)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=self.pattern.caption)
        self.caption_keys = k.transpose(2, 3).flatten(0, 1).contiguous()
        self.caption_values = v.flatten(0, 1).contiguous()
        rows = len(x) * self.candidates
        self.codes = CodeCache(self.pattern, q, rows, q.shape[1], q.shape[3])
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
        rows, heads, _, features = self.codes.keys.shape
        q, k, v = qkv.view(rows, 3, heads, features).unbind(1)
        keys, values = (x.flatten(0, 1) for x in self.codes.add(k, v, place))
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
        return x.unflatten(0, (-1, self.attention.heads)).transpose(1, 2).flatten(0, 1)
