"""Loss curves of small networks in fp32, from fixed seeds, and the file that keeps them.

They hold the networks, their initial weights and their losses as they are, with a plain AdamW of
torch, so that what they hold is the mathematics of `model_zoo` and not the system that trains it.
A change that is meant to change them makes the file anew:

    python -m tests.model_zoo.golden
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra.demo_web.drawing import random_pairs
from model_zoo.crops import area_resize
from model_zoo.weights import build_recipe

FILE = Path(__file__).with_name("golden.json")
STEPS, BATCH = 12, 6
_TEXT, _LENGTH, _CODES, _GRID = 24, 6, 20, (4, 5)
_STREAM = {
    "text_vocabulary": _TEXT, "text_length": _LENGTH, "image_vocabulary": _CODES,
    "grid_height": _GRID[0], "grid_width": _GRID[1], "width": 32, "heads": 2, "layers": 4,
    "caption_drop": 0.1,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "dalle": {**_STREAM, "conv_kernel": 3},
    "maskgit": _STREAM,
    "dvae": {
        "resolution": 16, "vocabulary": 24, "width": 16, "multipliers": [1, 2], "blocks": 1,
        "decoder_width": 8, "kl_warmup": 6, "temperature_steps": 10, "balance_weight": 0.1,
        "log_scale_floor": -3,
    },
    "clip": {
        "text_vocabulary": _TEXT, "text_length": _LENGTH, "resolution": 16, "patch": 8,
        "features": 16, "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1,
        "blur": 0.5,
    },
}  # fmt: skip


def pictures(count: int, side: int) -> Tensor:
    """Pictures of the demo, uint8 [count, 3, side, side]."""
    drawn = np.stack([np.asarray(pair.picture) for pair in random_pairs(count, 11)])
    return area_resize(torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous(), side, side)


def curve(name: str) -> list[float]:
    """The loss at each update, fp32 on the CPU."""
    torch.manual_seed(1)
    recipe = build_recipe(name, NETWORKS[name])
    data = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, _TEXT, (BATCH, _LENGTH), generator=data)
    tokens[0, 3:] = -1  # one caption is short
    batch = {
        "tokens": tokens,
        "codes": torch.randint(0, _CODES, (BATCH, _GRID[0] * _GRID[1]), generator=data),
        "images": pictures(BATCH, 16),
    }
    optimizer = torch.optim.AdamW(recipe.network.parameters(), lr=3e-3, betas=(0.9, 0.96))
    losses = []
    for step in range(STEPS):
        loss, _ = recipe.loss(batch, step, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


if __name__ == "__main__":
    curves = {name: curve(name) for name in NETWORKS}
    FILE.write_text(json.dumps(curves, indent=1) + "\n")
