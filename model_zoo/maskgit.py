"""MaskGIT: a transformer that fills in masked image codes, many at a time (arXiv 2202.04200).

The stream is [t_1 … t_L, c_1 … c_N]: a caption instead of the paper's class, and image codes of
which some are masked. Every position sees every other one, and the network is trained to tell the
masked codes from all the rest (section 3.1). Choices where the paper is silent, or has no captions:
each caption position has a padding token of its own; rows and columns have an embedding each;
layer norm comes first in a block; the output matrix is not that of the embeddings; weights are
drawn with std 1/sqrt(fan_in), embeddings with 0.3.

Shapes: B samples, L caption positions, H x W grid, N = H·W codes, T = L + N, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from model_zoo.code_pairs import CodePairs
from model_zoo.transformer import Layer, initialise
from schemas.base import Frozen

SAMPLER = "model_zoo.maskgit_sampler:sample"
PADDING = -1
MASK = -1
"""What stands for a masked code."""


class MaskgitConfig(Frozen):
    """Sizes of the transformer; the paper's is width 768, 8 heads, 24 layers."""

    text_vocabulary: int = Field(gt=0)
    text_length: int = Field(gt=0)
    image_vocabulary: int = Field(gt=0)
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of each label that is spread over the whole vocabulary (section 4.1)."""
    caption_drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples trained without their caption, for guidance."""

    @model_validator(mode="after")
    def _check(self) -> MaskgitConfig:
        if self.width % self.heads:
            raise ValueError(f"width: {self.width} does not divide into {self.heads} heads")
        return self

    @property
    def codes(self) -> int:
        """Image codes of a picture."""
        return self.grid_height * self.grid_width


class Maskgit(nn.Module):
    """The transformer; `forward` gives the logits of every image code."""

    def __init__(self, config: MaskgitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.text_embedding = nn.Embedding(config.text_vocabulary + config.text_length, width)
        self.text_position = nn.Embedding(config.text_length, width)
        self.image_embedding = nn.Embedding(config.image_vocabulary + 1, width)  # the last: MASK
        self.row = nn.Embedding(config.grid_height, width)
        self.column = nn.Embedding(config.grid_width, width)
        self.layers = nn.ModuleList(Layer(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.image_vocabulary)
        initialise(self, self.each_layer(), EMBEDDING_STD)

    def forward(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Logits of all codes, of the masked ones and of the others.

        Args:
            tokens: int64 [B, L] caption tokens, -1 where there is none.
            codes: int64 [B, N] image codes in raster order, MASK where they are to be told.

        Returns:
            fp32 [B, N, image_vocabulary].
        """
        x = torch.cat([self._embed_text(tokens), self._embed_codes(codes)], dim=1)
        for layer in self.each_layer():
            x = layer(x, F.scaled_dot_product_attention)
        return self.head(self.norm(x[:, self.config.text_length :]))

    def each_layer(self) -> list[Layer]:
        """The layers, from first to last."""
        return cast(list[Layer], list(self.layers))

    def _embed_text(self, tokens: Tensor) -> Tensor:
        place = torch.arange(self.config.text_length, device=tokens.device)
        ids = torch.where(tokens == PADDING, self.config.text_vocabulary + place, tokens)
        return self.text_embedding(ids) + self.text_position.weight

    def _embed_codes(self, codes: Tensor) -> Tensor:
        ids = codes.masked_fill(codes == MASK, self.config.image_vocabulary)
        places = (self.row.weight[:, None] + self.column.weight).flatten(0, 1)
        return self.image_embedding(ids) + places


EMBEDDING_STD = 0.3
"""About what the first blocks add. At 0.02 tokens are lost beneath it: after 2,200 updates at width
192 hardly any picture of two objects had the right shapes."""


class MaskgitRecipe:
    """How the transformer is trained (sections 3.1 and 3.3)."""

    def __init__(self, config: MaskgitConfig) -> None:
        self.config = config
        self.network = Maskgit(config)
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
        """Cross-entropy (nats, labels smoothed) of the masked codes, a mean over all of them."""
        tokens, codes = batch["tokens"], batch["codes"]
        masked = draw_masks(codes.shape[0], codes.shape[1], generator)
        without = _chances(len(tokens), generator) < self.config.caption_drop
        logits = self.network(tokens.masked_fill(without, PADDING), codes.masked_fill(masked, MASK))
        told, wanted = logits[masked], codes[masked]
        loss = F.cross_entropy(told, wanted, label_smoothing=self.config.label_smoothing)
        with torch.no_grad():
            metrics = {
                "image_loss": F.cross_entropy(told, wanted),
                "masked_share": masked.float().mean(),
                "right": (told.argmax(1) == wanted).float().mean(),
            }
        return loss, metrics

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Weight decay applies to the matrices of the residual blocks only."""
        return name.startswith("layers.") and parameter.ndim == 2


def draw_masks(samples: int, codes: int, generator: torch.Generator) -> Tensor:
    """Which codes are masked in training, bool [samples, codes]: a share cos(πr/2), r uniform.

    Each sample has its own r, and ⌈share·codes⌉ of its codes are masked, any of them alike.
    """
    share = torch.cos(_chances(samples, generator) * (math.pi / 2))
    number = (share * codes).ceil().clamp(min=1)
    order = torch.rand(samples, codes, generator=generator, device=generator.device)
    return order.argsort(dim=1).argsort(dim=1) < number


def _chances(samples: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, 1, generator=generator, device=generator.device)


def build_recipe(config: dict[str, Any]) -> MaskgitRecipe:
    """The recipe of a configuration (fields of `MaskgitConfig`)."""
    return MaskgitRecipe(MaskgitConfig.model_validate(config))
