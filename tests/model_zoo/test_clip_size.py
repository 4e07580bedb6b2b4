"""The closed form of CLIP's arithmetic against the real network's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.clip import CLIP, CLIPConfig
from model_zoo.clip_size import clip_flops


@pytest.mark.parametrize(
    "sizes",
    [{}, {"resolution": 48, "patch": 12, "features": 24, "text_width": 64, "image_layers": 1}],
    ids=["defaults", "other"],
)
def test_arithmetic_is_that_of_both_towers(sizes: dict[str, Any]) -> None:
    config = CLIPConfig.model_validate({"text_vocabulary": 20, "text_length": 6, **sizes})
    network, counter = CLIP(config).train(), FlopCounterMode(display=False)
    side = config.resolution
    # Of the fused attention on a CPU the counter knows nothing.
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        network.encode_images(torch.zeros(1, 3, side, side, dtype=torch.uint8))
        network.encode_texts(torch.zeros(1, 6, dtype=torch.int64))
    assert counter.get_total_flops() == clip_flops(config)
