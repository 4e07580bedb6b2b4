"""Sizes of networks in closed form: parameters, arithmetic and memory, without building one.

A network of 12 billion parameters is planned on a laptop this way; the tests compare every form
with the real network. A multiplication and an addition count as two FLOPs.

Shapes: d width, T inputs of a sample (caption positions and codes), m shards of a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from model_zoo.dalle import DalleConfig
from model_zoo.dvae import DVAEConfig
from model_zoo.dvae_size import ImageTokenizerSize, dvae_size
from model_zoo.maskgit import MaskgitConfig
from model_zoo.masks import Kind, stream_mask

FP32 = 4  # bytes


@dataclass(frozen=True)
class TransformerSize:
    """A transformer over caption tokens and image codes, whose layers have 12·d² weights.

    The first four fields from `matrices` on are numbers of parameters, the next three FLOPs of one
    sample's forward pass.
    """

    width: int
    heads: int
    layers: int
    tokens: int
    matrices: int
    """Of the residual blocks: what the paper keeps in 16 bits, and compresses."""
    gains_and_biases: int
    embeddings: int
    unembeddings: int
    matrix_flops: int
    attention_flops: int
    """Scores and sums over the positions that the masks allow, and no others."""
    logit_flops: int
    logits: int
    """Numbers that come out for one sample."""

    @property
    def others(self) -> int:
        """Parameters that the paper keeps in 32 bits and does not compress."""
        return self.gains_and_biases + self.embeddings + self.unembeddings

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.matrices + self.others

    @property
    def flops(self) -> int:
        """FLOPs of one sample's forward pass; a training step takes three times as many."""
        return self.matrix_flops + self.attention_flops + self.logit_flops

    def kept_activations(self, samples: int, bytes_in_block: int) -> int:
        """Bytes from the forward pass to the backward one when all is kept, as autograd does.

        A token leaves in each layer two inputs of layer norms and their two statistics in fp32; in
        the type of the blocks what the four matrices take in (d, d, d, 4d), queries, keys and
        values (3d) and what the GELU takes in (4d); and a number a head, the attention's
        normalisation. Each layer's mask becomes T² numbers. In 16 bits every matrix leaves its cast
        copy as well.
        """
        d = self.width
        token = FP32 * (2 * d + self.heads + 4) + bytes_in_block * 14 * d
        layer = samples * self.tokens * token + bytes_in_block * self.tokens**2
        copies = 0 if bytes_in_block == FP32 else bytes_in_block * self.matrices
        return self.layers * layer + copies + self._outside(samples)

    def recomputed_activations(self, samples: int, bytes_in_block: int) -> int:
        """Bytes when a residual block at a time is computed again in the backward pass.

        What every block takes in stays, in fp32; to that comes one feed-forward block, the largest:
        what its matrices and its GELU take in (9d a token), and as much in gradients.
        """
        token = FP32 * 2 * self.layers * self.width + bytes_in_block * 2 * 9 * self.width
        return samples * self.tokens * token + self._outside(samples)

    def _outside(self, samples: int) -> int:
        """What the last layer norm takes in and gives; logits, log-probabilities, gradients."""
        return samples * FP32 * (2 * self.tokens * self.width + 3 * self.logits)


def dalle_size(config: DalleConfig) -> TransformerSize:
    """The transformer of `model_zoo.dalle`."""
    d, layers = config.width, config.layers
    length, codes = config.text_length, config.codes
    texts = config.text_vocabulary + length  # a padding token for each position
    outputs = texts + config.image_vocabulary
    positions = 1 + length + config.grid_height + config.grid_width
    logits = length * texts + codes * config.image_vocabulary
    return TransformerSize(
        width=d, heads=config.heads, layers=layers, tokens=length + codes,
        matrices=12 * d * d * layers,
        # Of a layer: two norms (4d), and the biases of matrices to 3d, d, 4d and d.
        gains_and_biases=13 * d * layers + 2 * d + outputs,
        embeddings=(outputs + positions) * d,
        unembeddings=outputs * d,
        matrix_flops=2 * (length + codes) * 12 * d * d * layers,
        attention_flops=4 * d * _looks(config),
        logit_flops=2 * d * logits,
        logits=logits,
    )  # fmt: skip


def _looks(config: DalleConfig) -> int:
    """Pairs of positions of which one may look at the other, summed over layers."""
    sizes = (config.text_length + 1, config.grid_height, config.grid_width, config.conv_kernel)
    return sum(_allowed(kind, *sizes) for kind in config.kinds)


def maskgit_size(config: MaskgitConfig) -> TransformerSize:
    """The transformer of `model_zoo.maskgit`, in which every position looks at every other."""
    d, layers = config.width, config.layers
    tokens = config.text_length + config.codes
    positions = config.text_length + config.grid_height + config.grid_width
    # A padding token for each position of the caption, and one for a masked code.
    inputs = config.text_vocabulary + config.text_length + config.image_vocabulary + 1
    logits = config.codes * config.image_vocabulary
    return TransformerSize(
        width=d, heads=config.heads, layers=layers, tokens=tokens,
        matrices=12 * d * d * layers,
        gains_and_biases=13 * d * layers + 2 * d + config.image_vocabulary,
        embeddings=(inputs + positions) * d,
        unembeddings=config.image_vocabulary * d,
        matrix_flops=2 * tokens * 12 * d * d * layers,
        attention_flops=4 * d * tokens**2 * layers,
        logit_flops=2 * d * logits,
        logits=logits,
    )  # fmt: skip


@lru_cache
def _allowed(kind: Kind, caption: int, height: int, width: int, kernel: int) -> int:
    # The last code is never an input.
    return int(stream_mask(kind, caption, height, width, kernel)[:-1, :-1].sum())


def compressed_share(width: int, rank: int, shards: int) -> float:
    """Size of PowerSGD's factors over that of the gradients of the residual blocks.

    Each of m shards of a gradient is compressed at rank r / m (DALL-E, appendix E): four matrices
    d x d/m (queries, keys, values, output), one d x 4d/m and one 4d/m x d. Their factors have
    (5drm + 4dr) / m² and (drm + 8dr) / m² numbers, the gradients 12d² / m; so the share is
    r(m + 2) / (2dm), and what is saved at m = 8 is 1 - 5r / (8d).

    Raises:
        ValueError: for a rank that shards cannot share, or that saves nothing.
    """
    if rank < 1 or rank % shards:
        raise ValueError(f"rank: {rank} does not divide among the {shards} GPUs of a machine")
    share = rank * (shards + 2) / (2 * width * shards)
    if share >= 1:
        most = 2 * width * shards // (shards + 2)
        raise ValueError(f"rank: {rank} saves nothing at width {width}; it must be below {most}")
    return share


def _of_dalle(config: Mapping[str, Any]) -> TransformerSize:
    return dalle_size(DalleConfig.model_validate(dict(config)))


def _of_maskgit(config: Mapping[str, Any]) -> TransformerSize:
    return maskgit_size(MaskgitConfig.model_validate(dict(config)))


def _of_dvae(config: Mapping[str, Any]) -> ImageTokenizerSize:
    return dvae_size(DVAEConfig.model_validate(dict(config)))


TRANSFORMERS: dict[str, Callable[[Mapping[str, Any]], TransformerSize]] = {
    "dalle": _of_dalle,
    "maskgit": _of_maskgit,
}
IMAGE_TOKENIZERS: dict[str, Callable[[Mapping[str, Any]], ImageTokenizerSize]] = {"dvae": _of_dvae}


def transformer_size(network: str, config: Mapping[str, Any]) -> TransformerSize:
    """The size of a network that is configured so.

    Raises:
        ValueError: for a network whose size is not known in closed form.
    """
    if network not in TRANSFORMERS:
        raise ValueError(_unknown(network, TRANSFORMERS))
    return TRANSFORMERS[network](config)


def image_tokenizer_size(network: str, config: Mapping[str, Any]) -> ImageTokenizerSize:
    """The size of an image tokenizer that is configured so.

    Raises:
        ValueError: for a network whose size is not known in closed form.
    """
    if network not in IMAGE_TOKENIZERS:
        raise ValueError(_unknown(network, IMAGE_TOKENIZERS))
    return IMAGE_TOKENIZERS[network](config)


def _unknown(network: str, known: Mapping[str, Any]) -> str:
    return (
        f"network {network!r}: its size is not known in closed form (known: {', '.join(known)});"
        " add it to model_zoo.sizes"
    )
