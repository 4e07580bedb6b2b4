"""A contrastive model as open_clip publishes it, taken as it is: it ranks, and is not trained here.

It brings its own tokens with it, so it reads captions as text. Only architectures whose tokenizer
comes with the open_clip package are taken, so that a stored one is used without any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from schemas.base import Frozen


class PretrainedCLIPConfig(Frozen):
    """Which weights of which architecture, and how pixels (0 to 1) are mapped for them."""

    architecture: str
    """A name of `open_clip.list_models()`, such as ViT-B-32."""
    weights: str
    """A tag of `open_clip.list_pretrained()`, such as laion2b_s34b_b79k, or a file."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    spread: tuple[float, float, float] = Field(default=(0.26862954, 0.26130258, 0.27577711))


class PretrainedCLIP(nn.Module):
    """Pictures and captions as features in one space."""

    def __init__(self, config: PretrainedCLIPConfig, towers: nn.Module | None = None) -> None:
        super().__init__()
        import open_clip  # 4 s, and not needed to read a configuration

        self.config = config
        self.towers: Any = towers or open_clip.create_model(
            config.architecture, load_weights=False, pretrained_text=False
        )
        self.read: Any = open_clip.get_tokenizer(config.architecture)
        if not isinstance(self.read, open_clip.SimpleTokenizer):
            raise ValueError(
                f"architecture {config.architecture!r} reads text with a tokenizer that is not in"
                " the open_clip package; use one such as ViT-B-32"
            )

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Its own tokens of captions, int64 [B, L]; what is too long for it is cut."""
        tokens: Tensor = self.read(list(captions))
        return tokens

    def encode_images(self, images: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], 0 to 255 → features of length 1 [B, D]."""
        side = self.towers.visual.image_size
        size = (side, side) if isinstance(side, int) else tuple(side)
        pixels = functional.interpolate(
            images.float() / 255, size=size, mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
        mean, spread = (
            pixels.new_tensor(values)[:, None, None]
            for values in (self.config.mean, self.config.spread)
        )
        features: Tensor = self.towers.encode_image((pixels - mean) / spread)
        return functional.normalize(features.float(), dim=-1)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Tokens of `tokenize` → features of length 1 [B, D]."""
        features: Tensor = self.towers.encode_text(tokens)
        return functional.normalize(features.float(), dim=-1)


@dataclass(frozen=True)
class Untrained:
    """A network without a way to train it."""

    network: nn.Module


def build_recipe(config: dict[str, Any]) -> Untrained:
    """The network of a configuration, for weights to be put into."""
    return Untrained(PretrainedCLIP(PretrainedCLIPConfig.model_validate(config)))


def fetch_pretrained(config: dict[str, Any]) -> tuple[PretrainedCLIP, dict[str, Any]]:
    """Fetch published weights; the network, and its whole configuration.

    Raises:
        ValueError: if open_clip knows no such architecture or tag, or its tokenizer is elsewhere.
        OSError: if the hub cannot be reached.
    """
    import open_clip

    declared = PretrainedCLIPConfig.model_validate(config)
    try:
        towers = open_clip.create_model(
            declared.architecture, pretrained=declared.weights, require_pretrained=True
        )
    except RuntimeError as error:
        raise ValueError(f"{declared.architecture}, {declared.weights}: {error}") from error
    visual: Any = towers.visual
    whole = declared.model_copy(
        update={"mean": tuple(visual.image_mean), "spread": tuple(visual.image_std)}
    )
    with torch.no_grad():
        network = PretrainedCLIP(whole, towers)
    return network, whole.model_dump(mode="json")
