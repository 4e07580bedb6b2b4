"""What one process really holds under each ZeRO stage, between backward pass and update.

Prints JSON: bytes of all tensors by stage, and the configuration of the network.
"""

from __future__ import annotations

import gc
import json
import warnings

import torch

from model_zoo.dalle import build_recipe
from model_zoo.training.config import TrainingConfig
from model_zoo.training.engines.zero import ZeroEngine
from model_zoo.training.optimizer import build_optimizer
from model_zoo.training.processes import Processes

CONFIG = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 8, "grid_height": 4,
    "grid_width": 4, "width": 256, "heads": 4, "layers": 4, "conv_kernel": 3,
}  # fmt: skip


def held(stage: int, processes: Processes) -> int:
    """Bytes that there are more than before, in the second update, when there are moments."""
    before = _tensors()
    recipe = build_recipe(CONFIG)
    config = TrainingConfig.model_validate(
        {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "zero_stage": stage}
    )
    engine = ZeroEngine(recipe, config, processes, 1, build_optimizer(recipe, config))
    batch = {"tokens": torch.zeros(2, 4).long(), "codes": torch.zeros(2, 16).long()}
    loss, _ = engine.loss(batch, 0, torch.Generator())
    engine.last_backward(loss, lambda number, gradient: None)
    engine.step()
    loss, _ = engine.loss(batch, 1, torch.Generator())
    engine.engine.backward(loss)
    return sum(size for place, size in _tensors().items() if place not in before)


def _tensors() -> dict[int, int]:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By type and not isinstance, which would ask proxies among the objects what they are.
        tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    storages = [one.untyped_storage() for one in tensors]
    return {one.data_ptr(): one.nbytes() for one in storages}


if __name__ == "__main__":
    with Processes() as alone:
        found = {str(stage): held(stage, alone) for stage in (2, 3)}
    print(json.dumps({"held": found, "config": CONFIG}))
