"""A small CLIP that ranks pictures: how well does a picture match a caption?

An open_clip model (Radford et al., arXiv 2103.00020) built from declared sizes: a vision
transformer over patches and a causal text transformer over the tokens of our own text tokenizer,
trained with the symmetric contrastive loss. It differs from the paper in one point: captions of the
web repeat, so a pair whose caption equals another's in the batch is not that other's negative.

Shapes: B pairs, L tokens a caption (-1 after the last), D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.crops import CropConfig, PictureFiles, area_resize
from schemas.base import Frozen

# Pixels are mapped to about [-2, 2], as the statistics of natural pictures would do.
PIXEL_MEAN, PIXEL_SPREAD = 127.5, 63.75
LARGEST_SCALE = math.log(100)  # of the logits, as in the paper: a larger one is unstable


class CLIPConfig(Frozen):
    """Sizes of the two towers and the augmentation of pictures."""

    text_vocabulary: int = Field(gt=0)  # tokens that the text tokenizer knows
    text_length: int = Field(gt=0)  # tokens of the longest caption
    resolution: int = Field(default=32, gt=0)
    patch: int = Field(default=8, gt=0)
    features: int = Field(default=64, gt=0)
    image_width: int = Field(default=128, gt=0)
    image_layers: int = Field(default=3, gt=0)
    text_width: int = Field(default=128, gt=0)
    text_layers: int = Field(default=2, gt=0)
    head_width: int = Field(default=32, gt=0)
    crops: CropConfig = CropConfig(smallest=1, largest=1)
    shift: int = Field(default=1, ge=0)  # most pixels that a picture is moved in training
    blur: float = Field(default=0.0, ge=0, le=1)  # most of a 3x3 mean that is mixed in

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.resolution % self.patch:
            raise ValueError(f"resolution={self.resolution} does not divide by patch={self.patch}")
        for name in ("image_width", "text_width"):
            if getattr(self, name) % self.head_width:
                raise ValueError(
                    f"{name}={getattr(self, name)} does not divide by head_width={self.head_width}"
                )
        return self


class CLIP(nn.Module):
    """Pictures and captions as features of length 1 in one space."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        import open_clip  # 4 s, and not needed to read a configuration

        self.config = config
        vision = open_clip.CLIPVisionCfg(
            layers=config.image_layers, width=config.image_width, head_width=config.head_width,
            patch_size=config.patch, image_size=config.resolution,
        )  # fmt: skip
        # Two tokens of our own: what follows a caption, and its end, whose state is the caption's.
        # open_clip takes the state at the largest token, so the end is the largest.
        self.padding, self.end = config.text_vocabulary, config.text_vocabulary + 1
        text = open_clip.CLIPTextCfg(
            context_length=config.text_length + 1, vocab_size=config.text_vocabulary + 2,
            width=config.text_width, heads=config.text_width // config.head_width,
            layers=config.text_layers, pad_id=self.padding, pool_type="argmax",
        )  # fmt: skip
        self.towers = open_clip.CLIP(config.features, vision, text)

    @property
    def scale(self) -> Tensor:
        """What multiplies cosines before the softmax."""
        return self.towers.logit_scale.clamp(max=LARGEST_SCALE).exp()

    def encode_images(self, images: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], 0 to 255 → features [B, D]; other sizes are resized by area."""
        side = self.config.resolution
        pixels = images.float()
        if pixels.shape[-2:] != (side, side):
            pixels = area_resize(pixels, side, side)
        features: Tensor = self.towers.encode_image((pixels - PIXEL_MEAN) / PIXEL_SPREAD)
        return functional.normalize(features.float(), dim=-1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Tokens [B, up to L], -1 after the last → features [B, D].

        Raises:
            ValueError: for rows that are longer than the network reads.
        """
        length = self.config.text_length
        if tokens.shape[1] > length:
            raise ValueError(f"captions of {tokens.shape[1]} tokens; text_length is {length}")
        rows = functional.pad(tokens.long(), (0, length + 1 - tokens.shape[1]), value=-1)
        ends = (rows >= 0).sum(dim=1, keepdim=True)
        rows = rows.masked_fill(rows < 0, self.padding).scatter(1, ends, self.end)
        features: Tensor = self.towers.encode_text(rows)
        return functional.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def score(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosine [B] of each picture with the caption in the same row; higher is better."""
        return (self.encode_images(images) * self.encode_texts(tokens)).sum(dim=-1)


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """The symmetric cross-entropy of finding each one's partner, and the share that was found.

    Args:
        images: features of length 1 [B, D].
        texts: the same of the captions, row by row.
        scale: what multiplies cosines.
        tokens: the captions; those that are equal are no negatives of each other.
    """
    logits = scale * images @ texts.t()
    same = (tokens[:, None] == tokens[None]).all(dim=-1)
    partner = torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    logits = logits.masked_fill(same & ~partner, float("-inf"))
    target = torch.arange(len(tokens), device=tokens.device)
    loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.t(), target)
    found = (logits.argmax(dim=1) == target).float().mean()
    return loss / 2, found.detach()


def shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture [B, 3, H, W] moved by up to `most` pixels each way; its edge is repeated."""
    count, _, height, width = images.shape
    device = images.device
    moves = torch.randint(-most, most + 1, (2, count, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + moves[1]).clamp(0, width - 1)
    each = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def blurred(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Each picture mixed with up to `most` of its 3x3 means: floats of the same range."""
    pixels = images.float()
    means = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) * most
    return torch.lerp(pixels, means, share)


class CLIPRecipe:
    """How `model_zoo.training` trains it: files hold "images" uint8 [N, 3, R, R] and "tokens"
    int32 [N, L], -1 after the last."""

    def __init__(self, config: CLIPConfig) -> None:
        self.config = config
        self.network = CLIP(config)
        self.tokens = (config.resolution // config.patch) ** 2 + config.text_length

    def dataset(self, files: Sequence[Path], seed: int) -> PictureFiles:
        """Pictures and captions of the files."""
        return PictureFiles(files, seed, self.config.resolution, self.config.crops, ("tokens",))

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one update; the negatives are those of this process's batch."""
        images, tokens = batch["images"], batch["tokens"]
        if self.config.shift:
            images = shifted(images, self.config.shift, generator)
        if self.config.blur:
            images = blurred(images, self.config.blur, generator)
        scale = self.network.scale
        image_features = self.network.encode_images(images)
        text_features = self.network.encode_texts(tokens)
        loss, found = contrastive_loss(image_features, text_features, scale, tokens)
        return loss, {"accuracy": found, "scale": scale.detach()}

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """As open_clip does it: neither gains and biases nor the scale decay."""
        return parameter.ndim > 1


def build_recipe(config: dict[str, Any]) -> CLIPRecipe:
    """The recipe for a declared configuration; the network is drawn from torch's global seed."""
    return CLIPRecipe(CLIPConfig.model_validate(config))
