"""Closed forms of sizes against the real networks, and against sums written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.dalle import Dalle, DalleConfig
from model_zoo.maskgit import Maskgit, MaskgitConfig
from model_zoo.sizes import (
    compressed_share,
    dalle_size,
    image_tokenizer_size,
    maskgit_size,
    transformer_size,
)
from model_zoo.training.precision import set_precision

TWELVE = DalleConfig(
    text_vocabulary=16384, text_length=256, image_vocabulary=8192, grid_height=32, grid_width=32,
    width=3968, heads=62, layers=64,
)  # fmt: skip
SMALL = DalleConfig(
    text_vocabulary=20, text_length=16, image_vocabulary=8, grid_height=8, grid_width=6,
    width=64, heads=4, layers=6, conv_kernel=3,
)  # fmt: skip


MASKED = MaskgitConfig(
    text_vocabulary=20, text_length=16, image_vocabulary=8, grid_height=8, grid_width=6,
    width=64, heads=4, layers=6,
)  # fmt: skip


@pytest.mark.parametrize("config", [SMALL, TWELVE, MASKED], ids=["small", "12b", "masked"])
def test_parameters_by_part_are_those_of_the_transformer(
    config: DalleConfig | MaskgitConfig,
) -> None:
    with torch.device("meta"):
        network = Maskgit(config) if isinstance(config, MaskgitConfig) else Dalle(config)
    parts = {"matrices": 0, "gains_and_biases": 0, "embeddings": 0, "unembeddings": 0}
    for name, parameter in network.named_parameters():
        if name.startswith("layers.") and parameter.ndim == 2:
            parts["matrices"] += parameter.numel()
        elif name.endswith("head.weight"):
            parts["unembeddings"] += parameter.numel()
        elif name.endswith("bias") or name == "norm.weight" or name.startswith("layers."):
            parts["gains_and_biases"] += parameter.numel()
        else:
            parts["embeddings"] += parameter.numel()
    size = maskgit_size(config) if isinstance(config, MaskgitConfig) else dalle_size(config)
    assert parts == {name: getattr(size, name) for name in parts}
    assert size.parameters == sum(p.numel() for p in network.parameters())


def test_the_paper_s_twelve_billion() -> None:
    size = dalle_size(TWELVE)
    assert round(size.matrices / 1e9, 2) == 12.09
    assert round(size.parameters / 1e9, 1) == 12.3
    assert round(2 * size.matrices / 1e9) == 24


def test_arithmetic_of_matrices_and_logits_is_that_of_the_transformer() -> None:
    network = Dalle(SMALL)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 16, dtype=torch.int64), torch.zeros(1, 48, dtype=torch.int64))
    products = counter.get_flop_counts()["Global"]
    found = products[torch.ops.aten.addmm] + products.get(torch.ops.aten.mm, 0)
    size = dalle_size(SMALL)
    assert found == size.matrix_flops + size.logit_flops


def test_arithmetic_is_that_of_the_masked_transformer() -> None:
    network, counter = Maskgit(MASKED), FlopCounterMode(display=False)
    # Of the fused attention on a CPU the counter knows nothing.
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 16, dtype=torch.int64), torch.zeros(1, 48, dtype=torch.int64))
    assert maskgit_size(MASKED).flops == counter.get_total_flops()


def test_arithmetic_of_attention_counts_what_the_masks_allow() -> None:
    expected = 0
    for mask in Dalle(SMALL).masks():
        for row in mask.tolist():
            for allowed in row:
                expected += allowed * SMALL.width * 4  # a score and a sum, of two FLOPs each
    assert dalle_size(SMALL).attention_flops == expected


def _kept(network: nn.Module, *inputs: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, beside the parameters."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outputs = network(*inputs)
    del outputs
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_activations_are_what_autograd_keeps(precision: Any, samples: int) -> None:
    network = Dalle(SMALL)
    set_precision(network, precision)
    tokens, codes = torch.zeros(samples, 16).long(), torch.zeros(samples, 48).long()
    size = dalle_size(SMALL)
    logits = 4 * 3 * samples * size.logits  # the loss keeps them, not the network
    in_block = 4 if precision == "fp32" else 2
    expected = size.kept_activations(samples, in_block) - logits
    if precision == "bf16":  # on a CPU attention runs in fp32: what it takes in and gives, its mask
        wider = samples * size.tokens * (4 * 4 - 2 * 3) * size.width + 2 * size.tokens**2
        expected += size.layers * wider
    assert _kept(network, tokens, codes) == pytest.approx(expected, rel=0.02)


def test_recomputing_keeps_an_input_a_block() -> None:
    size = dalle_size(TWELVE)
    inputs = 128 * 1280 * 3968 * 4
    assert inputs < size.recomputed_activations(1, 2) < 1.25 * inputs
    assert size.recomputed_activations(2, 2) == 2 * size.recomputed_activations(1, 2)
    assert size.kept_activations(1, 2) > 10 * size.recomputed_activations(1, 2)


@pytest.mark.parametrize(
    ("width", "rank", "saved"), [(1920, 512, 83), (2688, 640, 85), (3968, 896, 86)]
)
def test_compression_saves_what_the_paper_says(width: int, rank: int, saved: int) -> None:
    share = compressed_share(width, rank, 8)
    assert round(100 * (1 - share)) == saved
    assert 1 - share == pytest.approx(1 - 5 * rank / (8 * width))


@pytest.mark.parametrize(("width", "rank", "shards"), [(3968, 896, 8), (256, 32, 4), (64, 8, 1)])
def test_compression_is_the_size_of_the_factors(width: int, rank: int, shards: int) -> None:
    part, d = width // shards, width
    shapes = [(d, part)] * 4 + [(d, 4 * part), (4 * part, d)]
    r = rank // shards
    factors = sum(rows * r + columns * r for rows, columns in shapes)
    share = factors / sum(math.prod(shape) for shape in shapes)
    assert compressed_share(width, rank, shards) == pytest.approx(share)


@pytest.mark.parametrize(
    ("rank", "words"),
    [(100, "rank: 100 does not divide among the 8 GPUs"), (6400, "it must be below 6348")],
)
def test_a_rank_that_cannot_be_is_refused(rank: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compressed_share(3968, rank, 8)


def test_a_network_without_a_closed_form_is_named() -> None:
    with pytest.raises(ValueError, match=r"network 'clip'.*known: .*dalle"):
        transformer_size("clip", {})
    with pytest.raises(ValueError, match=r"network 'clip'.*known: .*dvae"):
        image_tokenizer_size("clip", {})
