"""A published CLIP as ranker: any model that open_clip names, with weights from a file or a hub.

It reads captions with its own tokenizer (`tokenize`), not with the pipeline's. Where no hub can be
reached, give the path of a file with its weights; nothing is downloaded unless `fetch` is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.clip import contrastive_loss
from model_zoo.crops import CropConfig, PictureFiles
from schemas.base import Frozen


class PretrainedConfig(Frozen):
    """Which of open_clip's models; `crops` only matter when it is trained further."""

    model: str = Field(min_length=1)  # as `open_clip.list_models()` has it: "ViT-B-32"
    crops: CropConfig = CropConfig()

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        if model not in open_clip.list_models():
            raise ValueError(f"{model!r} is no model of open_clip; see open_clip.list_models()")
        return model


class PretrainedCLIP(nn.Module):
    """The model with the interface of `model_zoo.clip.CLIP`; its tokens are its own."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        # Without weights, and without those that parts of some models would fetch by themselves.
        self.towers = open_clip.create_model(
            config.model, pretrained=None, pretrained_image=False, pretrained_text=False
        )
        mean, std = self.towers.visual.image_mean, self.towers.visual.image_std
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the pictures that it was made for, pixels."""
        size = self.towers.visual.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Captions as the model's own tokens, int64 [B, L]; long ones are cut."""
        tokens: Tensor = open_clip.get_tokenizer(self.config.model)(list(texts))
        return tokens

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], 0 to 255 → features of length 1 [B, D], resized as in training."""
        pixels = images.float()
        if pixels.shape[-2:] != self.side:
            pixels = functional.interpolate(pixels, self.side, mode="bicubic", antialias=True)
        features = self.towers.encode_image((pixels.clamp(0, 255) - self.mean) / self.std)
        return functional.normalize(features.float(), dim=-1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Tokens of `tokenize` [B, L] → features of length 1 [B, D]."""
        return functional.normalize(self.towers.encode_text(tokens).float(), dim=-1)

    @torch.no_grad()
    def score(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosine [B] of each picture with the caption in the same row; higher is better."""
        return (self.encode_images(images) * self.encode_texts(tokens)).sum(dim=-1)


def fetch(config: PretrainedConfig, weights: str) -> PretrainedCLIP:
    """The model with its weights.

    Args:
        config: which model.
        weights: a path of a checkpoint, or a tag of `open_clip.list_pretrained()`, which is
            downloaded from the hub.

    Raises:
        ValueError: if it is neither.
    """
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if not Path(weights).is_file() and weights not in tags:
        raise ValueError(
            f"weights={weights!r}: neither a file nor a tag of {config.model}; its tags: {tags}"
        )
    network = PretrainedCLIP(config)
    network.towers = open_clip.create_model(config.model, pretrained=weights)
    return network.eval()


class PretrainedRecipe:
    """Further training on our pairs; files hold "images" and "tokens" as `tokenize` gives them."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.config = config
        self.network = PretrainedCLIP(config)
        self.tokens = int(self.network.towers.context_length)

    def dataset(self, files: Sequence[Path], seed: int) -> PictureFiles:
        """Random crops of the pictures, and their captions."""
        return PictureFiles(
            files, seed, min(self.network.side), self.config.crops, ("tokens",)
        )

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one update."""
        images = self.network.encode_images(batch["images"])
        texts = self.network.encode_texts(batch["tokens"].long())
        scale = self.network.towers.logit_scale.exp()
        loss, found = contrastive_loss(images, texts, scale, batch["tokens"])
        return loss, {"accuracy": found, "scale": scale.detach()}

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """As open_clip does it: neither gains and biases nor the scale decay."""
        return parameter.ndim > 1


def build_recipe(config: dict[str, Any]) -> PretrainedRecipe:
    """The recipe for a declared model, with weights that have learned nothing yet."""
    return PretrainedRecipe(PretrainedConfig.model_validate(config))
