"""The discrete VAE of DALL-E: a picture becomes a grid of codes, codes become a picture again.

Section 2.1 and appendix A of "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), at any
declared size; the defaults of `DVAEConfig` are the released network (53,786,240 encoder and
43,829,766 decoder parameters). Shapes: B pictures, H and W pixels, K codes in the vocabulary,
h = H / factor and w = W / factor.

- The encoder's logits become relaxed one-hot codes through the gumbel-softmax; the temperature
  falls along a cosine, because a linear fall usually diverged (appendix A.2).
- Pixels are judged by the logit-Laplace likelihood, whose support is the open interval (0, 1).
- The KL is that of a plain categorical against the uniform prior, even while the temperature is
  high.

Ours and not the paper's, each off by default, against a codebook of which small networks use 2 to 8
codes in the end (measured on the demo's pictures):

- `balance_weight`: a KL of the batch's mean code distribution against uniform.
- `centred` and the gains of the outer layers: pixels lie between 0.1 and 0.9, so at the paper's
  start every position has nearly the same logits; with these, codes differ before the first update.
- `codebook_start: clusters`: codes and decoder start from clusters of patches
  (`model_zoo.codebook`).
- `log_scale_floor`: on drawn pictures, whose areas are one exact colour, the likelihood has no
  upper bound and its scale would run to zero.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.crops import CropConfig, PictureFiles
from model_zoo.training.recipe import Dataset
from schemas.base import Frozen

COLLAPSE_BELOW = 0.05  # of the perplexity that is possible; our choice


class DVAEConfig(Frozen):
    """Sizes, initialisation and schedules; steps count updates."""

    resolution: int = Field(default=256, gt=0)  # pixels a side of the training crops
    patch: int = Field(default=1, gt=0)
    """Pixels a side that the outer layers take for one. 1 is the paper's; more is our choice for
    small pictures on a CPU, where convolutions at full resolution are most of the time."""
    codebook_start: Literal["random", "clusters"] = "random"
    """Random as the paper's, or from clusters of the data (`model_zoo.codebook`)."""
    vocabulary: int = Field(default=8192, ge=2)
    width: int = Field(default=256, gt=0)  # channels of the group at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4, 8)  # width of each group, from pixels to codes
    blocks: int = Field(default=2, gt=0)  # resblocks a group
    bottleneck: int = Field(default=4, gt=0)  # a block's width over that of its inner layers
    decoder_width: int = Field(default=128, gt=0)  # channels that a code becomes
    stem_kernel: int = Field(default=7, gt=0)
    encoder_kernels: tuple[int, ...] = (3, 3, 3, 1)
    decoder_kernels: tuple[int, ...] = (1, 3, 3, 3)
    residual_scale: float | None = None  # None: 1 / (groups * blocks)^2, the paper's
    gain: float = Field(default=1.0, gt=0)  # weights are drawn with std gain / sqrt(fan_in)
    pixel_gain: float = Field(default=1.0, gt=0)  # further, of the encoder's first layer
    logit_gain: float = Field(default=1.0, gt=0)  # of its last
    code_gain: float = Field(default=1.0, gt=0)  # of the decoder's first
    centred: bool = False  # the first layer's biases start so that it makes zero of mid-grey

    pixel_margin: float = Field(default=0.1, gt=0, lt=0.5)  # the paper's epsilon
    log_scale_floor: float | None = None  # least ln b of the likelihood
    kl_weight: float = Field(default=6.6, ge=0)  # the paper's beta, for sums over a picture
    kl_warmup: int = Field(default=5_000, ge=0)
    temperature_start: float = Field(default=1.0, gt=0)
    temperature_end: float = Field(default=1 / 16, gt=0)
    temperature_steps: int = Field(default=150_000, ge=0)
    balance_weight: float = Field(default=0.0, ge=0)
    collapse_below: float = Field(default=COLLAPSE_BELOW, ge=0, le=1)
    """Share of the possible perplexity below which the codebook counts as collapsed."""
    crops: CropConfig = CropConfig()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(
                f"multipliers={self.multipliers}: one positive number for each group is needed"
            )
        if self.resolution % self.factor:
            raise ValueError(
                f"resolution={self.resolution} does not divide by the factor {self.factor}"
                f" that {len(self.multipliers)} groups make; use a multiple of {self.factor}"
            )
        if self.width % self.bottleneck:
            raise ValueError(f"width={self.width} does not divide by bottleneck={self.bottleneck}")
        for name in ("encoder_kernels", "decoder_kernels"):
            if not getattr(self, name) or any(kernel % 2 == 0 for kernel in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: odd sizes keep the picture's size")
        return self

    @property
    def factor(self) -> int:
        """Pixels a side that share one code: every group but the last halves the picture."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    @property
    def is_table(self) -> bool:
        """Whether the decoder's identity path alone can show a patch of its own for each code."""
        wide = self.decoder_width == self.width * self.multipliers[0] >= 6 * self.patch**2
        return len(self.multipliers) == 1 and wide

    @property
    def grid(self) -> int:
        """Codes a side of a training crop."""
        return self.resolution // self.factor

    @property
    def branch_scale(self) -> float:
        """What multiplies the residual branch of every block."""
        layers = len(self.multipliers) * self.blocks
        return 1 / layers**2 if self.residual_scale is None else self.residual_scale

    @property
    def kl_scale(self) -> float:
        """The context's shrinkage, 3·factor² (192 as released): the loss is a mean over pixels and
        colours, so a KL that is a mean over codes is divided by it to keep the paper's beta."""
        return 3.0 * self.factor**2


class Convolution(nn.Conv2d):
    """A convolution that keeps height and width, drawn as in the released code; bias zero."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float) -> None:
        self.gain = gain
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def reset_parameters(self) -> None:
        """Draw the weights; called by `nn.Conv2d` itself."""
        fan_in = self.in_channels * self.kernel_size[0] ** 2
        nn.init.normal_(self.weight, std=self.gain / math.sqrt(fan_in))
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class FullPrecision(Convolution):
    """A convolution in fp32 whatever surrounds it: the encoder's last, the decoder's first."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of [B, inputs, H, W], fp32."""
        with torch.autocast(input.device.type, enabled=False):
            assert self.bias is not None
            weight, bias = self.weight.float(), self.bias.float()
            return functional.conv2d(input.float(), weight, bias, padding=self.padding)


class ResBlock(nn.Module):
    """x → path(x) + scale·branch(x); the branch is a bottleneck, each layer after a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernels: Sequence[int], config: DVAEConfig
    ) -> None:
        super().__init__()
        self.scale = config.branch_scale
        inner = outputs // config.bottleneck
        widths = [inputs, *[inner] * (len(kernels) - 1), outputs]
        layers: list[nn.Module] = []
        for index, kernel in enumerate(kernels):
            layers.append(nn.ReLU())
            layers.append(Convolution(widths[index], widths[index + 1], kernel, config.gain))
        self.branch = nn.Sequential(*layers)
        same = inputs == outputs
        self.path = nn.Identity() if same else Convolution(inputs, outputs, 1, config.gain)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] → [B, outputs, H, W]."""
        return torch.add(self.path(x), self.branch(x), alpha=self.scale)


def _group(
    inputs: int, outputs: int, kernels: Sequence[int], config: DVAEConfig
) -> list[nn.Module]:
    widths = [inputs, *[outputs] * config.blocks]
    pairs = itertools.pairwise(widths)
    return [ResBlock(before, after, kernels, config) for before, after in pairs]


def build_encoder(config: DVAEConfig) -> nn.Sequential:
    """φ(pixels) [B, 3, H, W] → logits [B, K, h, w]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    colours = 3 * config.patch**2
    layers["input"] = Convolution(colours, config.width, config.stem_kernel, config.gain)
    width = config.width
    for number, multiplier in enumerate(config.multipliers, start=1):
        group = _group(width, multiplier * config.width, config.encoder_kernels, config)
        if number < len(config.multipliers):
            group.append(nn.MaxPool2d(2))
        layers[f"group_{number}"] = nn.Sequential(*group)
        width = multiplier * config.width
    layers["relu"] = nn.ReLU()
    layers["output"] = FullPrecision(width, config.vocabulary, 1, config.gain)
    return nn.Sequential(layers)


def build_decoder(config: DVAEConfig) -> nn.Sequential:
    """Codes as (relaxed) one-hot maps [B, K, h, w] → μ and ln b of each colour [B, 6, H, W]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["input"] = FullPrecision(config.vocabulary, config.decoder_width, 1, config.gain)
    width = config.decoder_width
    for number, multiplier in enumerate(reversed(config.multipliers), start=1):
        group = _group(width, multiplier * config.width, config.decoder_kernels, config)
        if number < len(config.multipliers):
            group.append(nn.Upsample(scale_factor=2, mode="nearest"))
        layers[f"group_{number}"] = nn.Sequential(*group)
        width = multiplier * config.width
    layers["relu"] = nn.ReLU()
    layers["output"] = Convolution(width, 6 * config.patch**2, 1, config.gain)
    layers["pixels"] = nn.PixelShuffle(config.patch)
    return nn.Sequential(layers)


class DVAE(nn.Module):
    """Encoder and decoder, and the way from pixels to codes and back."""

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.decoder = build_decoder(config)
        self._scale_outer_layers()
        # Measured on two cores at 32x32: a third faster than the default layout.
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _scale_outer_layers(self) -> None:
        config = self.config
        first = self.encoder.get_submodule("input")
        assert isinstance(first, Convolution)
        first.weight.mul_(config.pixel_gain)
        if config.centred:
            assert first.bias is not None
            first.bias.copy_(-0.5 * first.weight.sum(dim=(1, 2, 3)))
        self.encoder.get_parameter("output.weight").mul_(config.logit_gain)
        self.decoder.get_parameter("input.weight").mul_(config.code_gain)

    def logits(self, targets: Tensor) -> Tensor:
        """Logits of the codes [B, K, h, w] for φ(pixels) [B, 3, H, W].

        Raises:
            ValueError: if H or W is no multiple of the factor.
        """
        height, width = targets.shape[-2:]
        factor = self.config.factor
        if height % factor or width % factor:
            raise ValueError(
                f"a picture of {height}x{width} pixels has no whole number of codes;"
                f" both sides must be multiples of {factor}"
            )
        patches = functional.pixel_unshuffle(targets, self.config.patch)
        logits: Tensor = self.encoder(patches.contiguous(memory_format=torch.channels_last))
        return logits

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], 0 to 255 → codes [B, h, w] int64: the likeliest, without noise."""
        return self.logits(map_pixels(images, self.config.pixel_margin)).argmax(dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] → pictures [B, 3, H, W] uint8, the centre of each pixel's likelihood."""
        first = self.decoder.get_submodule("input")
        assert isinstance(first, FullPrecision) and first.bias is not None
        # The first layer is 1x1 and its input one-hot, so it is a table look-up.
        table = first.weight.flatten(1).t() + first.bias[:, None].t()
        hidden = functional.embedding(codes, table).permute(0, 3, 1, 2)
        for layer in list(self.decoder)[1:]:
            hidden = layer(hidden)
        return unmap_pixels(hidden[:, :3], self.config.pixel_margin)


def map_pixels(images: Tensor, margin: float) -> Tensor:
    """φ: pixels 0 to 255 → [margin, 1 − margin] (appendix A.3)."""
    return (1 - 2 * margin) / 255 * images.float() + margin


def unmap_pixels(mu: Tensor, margin: float) -> Tensor:
    """φ⁻¹ of sigmoid(μ), rounded: uint8 pixels."""
    share = (torch.sigmoid(mu.float()) - margin) / (1 - 2 * margin)
    return (share * 255).round().clamp(0, 255).to(torch.uint8)


def logit_laplace_nll(targets: Tensor, mu: Tensor, log_b: Tensor) -> Tensor:
    """Negative log-likelihood of each value of targets in (0, 1), elementwise.

    density(x) = exp(−|logit(x) − μ| / b) / (2·b·x·(1 − x)), appendix A.3.
    """
    distance = (torch.logit(targets) - mu).abs()
    return distance * torch.exp(-log_b) + log_b + torch.log(2 * targets * (1 - targets))


def gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Relaxed one-hot samples over dimension 1 (Jang et al., Maddison et al.)."""
    # Codes last: where channels lie last in memory, as here, this is seven times as fast on a CPU.
    rows = logits.movedim(1, -1).float()
    uniform = torch.empty_like(rows).uniform_(generator=generator)
    # The noise is minus this; not drawn by `exponential_`, which takes five times as long.
    minus = uniform.clamp_min_(torch.finfo(torch.float32).tiny).log_().neg_().log_()
    return torch.softmax((rows - minus) / temperature, dim=-1).movedim(-1, 1)


def uniform_kl(q: Tensor, log_q: Tensor) -> Tensor:
    """KL(q ‖ uniform) in nats over the last dimension of probabilities and their logarithms."""
    return (q * log_q).sum(dim=-1) + math.log(q.shape[-1])


def anneal(step: int, start: float, end: float, steps: int) -> float:
    """From start to end along half a cosine over the given updates, then constant."""
    share = min(step / steps, 1.0) if steps else 1.0
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def codebook_metrics(
    counts: Tensor, collapse_below: float = COLLAPSE_BELOW
) -> dict[str, Tensor]:  # fmt: skip
    """Use of the codebook from how often each code was chosen [K].

    `codebook_use` is the share of codes chosen at all and `perplexity` exp(entropy) of the choice;
    `perplexity_share` relates it to the most that so many choices from K codes can have.
    `codebook_collapsed` is 1 where that is below `collapse_below`: the sign that the codes no
    longer tell pictures apart.
    """
    total = counts.sum()
    share = counts / total
    perplexity = torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
    possible = torch.minimum(total, torch.tensor(float(counts.numel()), device=counts.device))
    return {
        "codebook_use": (counts > 0).float().mean(),
        "perplexity": perplexity,
        "perplexity_share": perplexity / possible,
        "codebook_collapsed": (perplexity / possible < collapse_below).float(),
    }


def psnr(pictures: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of uint8 pictures against images, over all of them."""
    error = (pictures.float() - images.float()).square().mean()
    return 10 * torch.log10(255**2 / error.clamp_min(1e-8))


def dvae_loss(
    network: DVAE, images: Tensor, step: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the evidence lower bound over pixels and colours (equation 1), and what to watch."""
    config = network.config
    targets = map_pixels(images, config.pixel_margin)
    logits = network.logits(targets)
    temperature = anneal(
        step, config.temperature_start, config.temperature_end, config.temperature_steps
    )
    kl_weight = anneal(step, 0.0, config.kl_weight, config.kl_warmup)
    mu, log_b = network.decoder(gumbel_softmax(logits, temperature, generator)).chunk(2, dim=1)
    mu, log_b = mu.float(), log_b.float()
    if config.log_scale_floor is not None:
        # Not a clamp: below the floor it would have no gradient to come back by.
        log_b = config.log_scale_floor + functional.softplus(log_b - config.log_scale_floor)
    reconstruction = logit_laplace_nll(targets, mu, log_b).mean()
    log_q = torch.log_softmax(logits.float().movedim(1, -1), dim=-1)
    q = log_q.exp()
    kl = uniform_kl(q, log_q).mean()
    loss = reconstruction + kl_weight / config.kl_scale * kl
    mean = q.mean(dim=(0, 1, 2))
    balance = uniform_kl(mean, mean.clamp_min(1e-20).log())
    if config.balance_weight:
        loss = loss + config.balance_weight * balance
    with torch.no_grad():
        counts = torch.bincount(logits.argmax(dim=1).flatten(), minlength=config.vocabulary).float()
        metrics = {
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            "balance": balance.detach(),
            "psnr": psnr(unmap_pixels(mu, config.pixel_margin), images),
            "temperature": torch.tensor(temperature),
            "kl_weight": torch.tensor(kl_weight),
            **codebook_metrics(counts, config.collapse_below),
        }
    return loss, metrics


class DVAERecipe:
    """How `model_zoo.training` trains a dVAE; files hold "images" uint8 [N, 3, R, R]."""

    def __init__(self, config: DVAEConfig) -> None:
        self.config = config
        self.network = DVAE(config)
        self.tokens = config.grid**2

    def dataset(self, files: Sequence[Path], seed: int) -> PictureFiles:
        """Random crops of the pictures in the files."""
        return PictureFiles(files, seed, self.config.resolution, self.config.crops)

    def start_from_data(self, dataset: Dataset, seed: int) -> None:
        """Start the codebook from clusters of the pictures, where that is declared."""
        if self.config.codebook_start == "clusters":
            from model_zoo.codebook import start_codebook  # it builds on this module

            some = np.arange(min(len(dataset), 2_000))
            start_codebook(self.network, dataset.batch(some, 0)["images"], seed)

    def loss(
        self, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one update."""
        return dvae_loss(self.network, batch["images"], step, generator)

    def decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Weights decay, biases do not (our choice: the paper does not say)."""
        return parameter.ndim > 1


def build_recipe(config: dict[str, Any]) -> DVAERecipe:
    """The recipe for a declared configuration; the network is drawn from torch's global seed."""
    return DVAERecipe(DVAEConfig.model_validate(config))
