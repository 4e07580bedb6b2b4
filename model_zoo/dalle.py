"""DALL-E's prior: one transformer over caption tokens followed by image codes (arXiv 2102.12092).

The stream is [start, t_1 … t_L, c_1 … c_N]; each position predicts the next token, so that the loss
is the whole of -log p(caption, codes). The last code is never an input. Choices where the paper is
silent: a learned start vector stands before the caption; caption and image have an output matrix
each, over their own vocabulary (the caption's includes its padding tokens); weights are drawn as in
GPT-2, but with std 1/sqrt(fan_in) instead of 0.02, which is the same at the width of 2,500 and
trains far better at the width of 200.

Shapes: B samples, L caption positions, H x W grid, N = H·W codes, S = L + 1 positions before the
image, T = S + N - 1 inputs, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from model_zoo.attention import MaskedAttention
from model_zoo.code_pairs import CodePairs
from model_zoo.masks import Kind, layer_kinds
from model_zoo.transformer import Layer, draw_embedding, initialise
from schemas.base import Frozen

SAMPLER = "model_zoo.sampler:sample"
PADDING = -1


class DalleConfig(Frozen):
    """Sizes of the transformer; the paper's 12 B model is width 3968, 62 heads, 64 layers."""

    text_vocabulary: int = Field(gt=0)
    text_length: int = Field(gt=0)
    image_vocabulary: int = Field(gt=0)
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)
    conv_kernel: int = Field(default=11, gt=0)
    attention: tuple[Kind, ...] | None = None
    """Pattern of image attention of each layer; the paper's when absent."""
    text_weight: float = Field(default=1 / 8, ge=0, le=1)
    """Share of the caption's cross-entropy in the loss; the image has the rest."""
    embedding_std: float = Field(default=0.02, gt=0)
    """With which embeddings are drawn. GPT-2's is small against the blocks' outputs where networks
    are small: at the demo's width of 192 0.3 learns faster (image loss after 350 updates 0.84
    instead of 0.90; 0.1 gives 0.86, 1.0 gives 0.88)."""
    caption_drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples trained without their caption, for guidance (`Sampling.guidance`)."""

    @model_validator(mode="after")
    def _check(self) -> DalleConfig:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} does not divide into {self.heads} heads")
        if self.attention is not None and len(self.attention) != self.layers:
            raise ValueError(
                f"attention: {len(self.attention)} patterns for {self.layers} layers; give one each"
            )
        return self

    @property
    def codes(self) -> int:
        """Image codes of a picture."""
        return self.grid_height * self.grid_width

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Pattern of image attention of each layer."""
        return self.attention or layer_kinds(self.layers)


class Dalle(nn.Module):
    """The transformer; `forward` gives the logits of every caption token and image code."""

    def __init__(self, config: DalleConfig) -> None:
        super().__init__()
        self.config = config
        width, texts = config.width, config.text_vocabulary + config.text_length
        self.start = nn.Parameter(torch.empty(width))
        self.text_embedding = nn.Embedding(texts, width)
        self.text_position = nn.Embedding(config.text_length, width)
        self.image_embedding = nn.Embedding(config.image_vocabulary, width)
        self.row = nn.Embedding(config.grid_height, width)
        self.column = nn.Embedding(config.grid_width, width)
        self.layers = nn.ModuleList(Layer(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, texts)
        self.image_head = nn.Linear(width, config.image_vocabulary)
        self.patterns = nn.ModuleDict(
            {
                kind: MaskedAttention(
                    kind, config.text_length + 1, config.grid_height, config.grid_width,
                    config.conv_kernel,
                )
                for kind in sorted(set(config.kinds))
            }
        )  # fmt: skip
        initialise(self, self.each_layer(), config.embedding_std)
        draw_embedding(self.start, config.embedding_std)

    def forward(self, tokens: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of each token given those before it.

        Args:
            tokens: int64 [B, L] caption tokens, -1 where there is none.
            codes: int64 [B, N] image codes in raster order.

        Returns:
            fp32 [B, L, text_vocabulary + L] and fp32 [B, N, image_vocabulary].
        """
        before = self.config.text_length
        x = torch.cat([self.embed_text(tokens), self.embed_codes(codes[:, :-1], 0)], dim=1)
        for layer, kind in zip(self.each_layer(), self.config.kinds, strict=True):
            x = layer(x, self.patterns[kind])
        x = self.norm(x)
        return self.text_head(x[:, :before]), self.image_head(x[:, before:])

    def each_layer(self) -> list[Layer]:
        """The layers, from first to last."""
        return cast(list[Layer], list(self.layers))

    def masks(self) -> list[Tensor]:
        """The mask of each layer, bool [T, T]."""
        return [self.get_buffer(f"patterns.{kind}.mask") for kind in self.config.kinds]

    def text_ids(self, tokens: Tensor) -> Tensor:
        """Caption tokens with each padding replaced by the padding token of its position."""
        padding = self.config.text_vocabulary + torch.arange(
            self.config.text_length, device=tokens.device
        )
        return torch.where(tokens == PADDING, padding, tokens)

    def embed_text(self, tokens: Tensor) -> Tensor:
        """The start vector and the caption's embeddings, [B, S, D]."""
        text = self.text_embedding(self.text_ids(tokens)) + self.text_position.weight
        return torch.cat([self.start.expand(len(tokens), 1, -1), text], dim=1)

    def embed_codes(self, codes: Tensor, first: int) -> Tensor:
        """Embeddings [B, n, D] of codes [B, n] that stand at raster positions first, first + 1 …"""
        place = torch.arange(first, first + codes.shape[1], device=codes.device)
        row, column = place // self.config.grid_width, place % self.config.grid_width
        return self.image_embedding(codes) + self.row(row) + self.column(column)


class DalleRecipe:
    """How the transformer is trained (section 2.2, appendix B)."""

    def __init__(self, config: DalleConfig) -> None:
        self.config = config
        self.network = Dalle(config)
        self.tokens = config.text_length + config.codes

    def dataset(self, files: Sequence[Path], seed: int) -> CodePairs:
        """Captions and codes; each epoch draws one of the crops that were encoded of an image."""
        config = self.config
        pairs = CodePairs(files, seed)
        pairs.check(
            config.text_vocabulary, config.text_length, config.image_vocabulary,
            config.grid_height, config.grid_width,
        )  # fmt: skip
        return pairs

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """1/8 of the caption's and 7/8 of the image's cross-entropy (nats), each a mean."""
        tokens, codes = batch["tokens"], batch["codes"]
        text_logits, image_logits = self.network(self._without_some(tokens, generator), codes)
        text = F.cross_entropy(text_logits.flatten(0, 1), self.network.text_ids(tokens).flatten())
        image = F.cross_entropy(image_logits.flatten(0, 1), codes.flatten())
        share = self.config.text_weight
        metrics = {"text_loss": text.detach(), "image_loss": image.detach()}
        return share * text + (1 - share) * image, metrics

    def _without_some(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Captions as the network sees them: some are nothing but padding."""
        if not self.config.caption_drop:
            return tokens
        chance = torch.rand(len(tokens), 1, generator=generator, device=tokens.device)
        return tokens.masked_fill(chance < self.config.caption_drop, PADDING)

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Weight decay applies to the matrices of the residual blocks only."""
        return name.startswith("layers.") and parameter.ndim == 2


def build_recipe(config: dict[str, Any]) -> DalleRecipe:
    """The recipe of a configuration (fields of `DalleConfig`)."""
    return DalleRecipe(DalleConfig.model_validate(config))
