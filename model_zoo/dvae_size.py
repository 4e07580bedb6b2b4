"""The size of the dVAE in closed form: parameters, arithmetic and memory, without building it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from model_zoo.dvae import DVAEConfig

_FP32 = 4  # bytes


@dataclass(frozen=True)
class ImageTokenizerSize:
    """A network that turns pictures into codes and back."""

    encoder: int
    decoder: int
    flops: int
    """Of one picture's forward pass, there and back."""
    activations: int
    """Bytes that autograd keeps of one picture, from the forward pass to the backward one."""
    passing: int
    """Bytes of one picture that the backward pass has beside them: two of its largest maps, the
    gradient that comes to a block and the one that goes on."""
    resolution: int
    grid: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.encoder + self.decoder

    @property
    def shrinkage(self) -> float:
        """Values of a picture (pixels times colours) over the codes that stand for them."""
        return 3 * self.resolution**2 / self.grid**2


def dvae_size(config: DVAEConfig) -> ImageTokenizerSize:
    """The dVAE of `model_zoo.dvae`."""
    encoder, decoder = list(_encoder(config)), list(_decoder(config))
    return ImageTokenizerSize(
        encoder=sum(one.parameters for one in encoder),
        decoder=sum(one.parameters for one in decoder),
        flops=sum(one.flops for one in [*encoder, *decoder]),
        activations=_activations(config, [*encoder, *decoder]),
        passing=2 * _FP32 * max(one.outputs * one.side**2 for one in [*encoder, *decoder]),
        resolution=config.resolution,
        grid=config.grid,
        vocabulary=config.vocabulary,
    )


def _activations(config: DVAEConfig, layers: list[_Convolution]) -> int:
    """Numbers in fp32, since the network knows no other, and a pooling's indices of 8 bytes.

    Of a convolution its input stays, which is what the ReLU before it gives (or the softmax, before
    the decoder's first); of a pooling its input, and where each largest value was. The loss keeps
    the codes' log-probabilities and probabilities; and for each colour of each pixel the distance
    with and without sign, the scale, and what a floor of the scale is told by.
    """
    numbers = sum(one.inputs * one.side**2 for one in layers)
    side = config.resolution // config.patch
    for number, multiplier in enumerate(config.multipliers[:-1]):
        before = multiplier * config.width * (side >> number) ** 2
        numbers += before + 2 * before // 4
    numbers += 2 * config.vocabulary * config.grid**2
    numbers += (3 if config.log_scale_floor is None else 4) * 3 * config.resolution**2
    return _FP32 * numbers


class _Convolution(NamedTuple):
    inputs: int
    outputs: int
    kernel: int
    side: int

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.kernel**2 + self.outputs

    @property
    def flops(self) -> int:
        return 2 * self.inputs * self.outputs * self.kernel**2 * self.side**2


def _encoder(config: DVAEConfig) -> Iterator[_Convolution]:
    side, width = config.resolution // config.patch, config.width
    yield _Convolution(3 * config.patch**2, width, config.stem_kernel, side)
    for number, multiplier in enumerate(config.multipliers):
        outputs = multiplier * config.width
        yield from _group(width, outputs, config.encoder_kernels, side >> number, config)
        width = outputs
    yield _Convolution(width, config.vocabulary, 1, config.grid)


def _decoder(config: DVAEConfig) -> Iterator[_Convolution]:
    width = config.decoder_width
    yield _Convolution(config.vocabulary, width, 1, config.grid)
    for number, multiplier in enumerate(reversed(config.multipliers)):
        outputs = multiplier * config.width
        yield from _group(width, outputs, config.decoder_kernels, config.grid << number, config)
        width = outputs
    yield _Convolution(width, 6 * config.patch**2, 1, config.resolution // config.patch)


def _group(
    inputs: int, outputs: int, kernels: tuple[int, ...], side: int, config: DVAEConfig
) -> Iterator[_Convolution]:
    inner = outputs // config.bottleneck
    for before in (inputs, *[outputs] * (config.blocks - 1)):
        widths = [before, *[inner] * (len(kernels) - 1), outputs]
        for index, kernel in enumerate(kernels):
            yield _Convolution(widths[index], widths[index + 1], kernel, side)
        if before != outputs:
            yield _Convolution(before, outputs, 1, side)
