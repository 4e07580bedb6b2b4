"""Train the prior: the network that writes image codes after a caption (DALL-E, stage 2).

It is trained by DeepSpeed unless declared otherwise. What it is made of is declared; how many
tokens, codes and positions it knows follows from the tokenizers and the encoded pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from safetensors import safe_open

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.weights import read_header
from schemas.artifact import CodeShards, ImageTokenizer, Prior, TextTokenizer
from schemas.stage import stage
from tasks.tokens import load_tokenizer
from tasks.training_process import TrainParams, train_network


class PriorParams(TrainParams):
    """Which network, and how it is trained."""

    network: str = "dalle"
    from_inputs: ClassVar[Mapping[str, int]] = {
        "text_vocabulary": 256, "text_length": 16, "image_vocabulary": 16,
        "grid_height": 8, "grid_width": 8,
    }  # fmt: skip


@stage(retries=2, cores=2, memory_gb=3.0, versions=("torch", "deepspeed"))
def train_prior(
    codes: CodeShards, text_tokenizer: TextTokenizer, image_tokenizer: ImageTokenizer,
    params: PriorParams, work: Work,
) -> Prior:  # fmt: skip
    """Train on encoded pairs; resumes from its newest checkpoint."""
    if not codes.units:
        raise PermanentError("there are no encoded pairs to train the prior on")
    files = [work.fetch(unit) for unit in codes.units]
    sizes = {
        "text_vocabulary": load_tokenizer(work.fetch(text_tokenizer.units[0])).get_vocab_size(),
        "image_vocabulary": _vocabulary(work.fetch(image_tokenizer.units[0])),
        **_shape(files),
    }
    path = train_network(params, params.training, params.with_sizes(sizes), files, work)
    return Prior(units=(work.add(path, "prior.safetensors"),))


def _vocabulary(image_tokenizer: Path) -> int:
    _, config = read_header(image_tokenizer)
    return int(config["vocabulary"])


def _shape(files: Sequence[Path]) -> dict[str, int]:
    """Caption positions and grid of the pairs; the network refuses files that differ."""
    with safe_open(files[0], framework="np") as file:
        length = file.get_slice("tokens").get_shape()[-1]
        height, width = file.get_slice("codes").get_shape()[-2:]
    return {"text_length": length, "grid_height": height, "grid_width": width}
