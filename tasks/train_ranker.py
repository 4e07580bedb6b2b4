"""Train the ranker: a contrastive model that scores how well a picture matches a caption (CLIP).

It is trained on the pipeline's own pairs. Or, where a hub is reachable, published weights are taken
as they are (network `pretrained_clip`), and nothing is trained.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.training.config import TrainingConfig
from schemas.artifact import ImageShards, Ranker, TextTokenizer
from schemas.stage import operational, stage
from tasks.prepared import Loading, prepare
from tasks.tokens import load_tokenizer
from tasks.training_process import NetworkChoice, train_network

PUBLISHED = ("pretrained_clip",)


class RankerParams(NetworkChoice):
    """Which network, and how it is trained, if it is."""

    network: str = "clip"
    training: TrainingConfig | None = None
    picture_side: int = Field(default=32, gt=0)
    """Pixels a side at which pictures are kept; the network's random crops are taken from these."""
    pictures: Loading = operational("prepared")
    """As the image tokenizer's: `prepared` files, or decoded from the `shards` in every epoch."""
    from_inputs: ClassVar[Mapping[str, int]] = {"text_vocabulary": 256}

    @model_validator(mode="after")
    def _is_trained_or_published(self) -> Self:
        if (self.training is None) != (self.network in PUBLISHED):
            raise ValueError(
                f"training: {self.network} is "
                + ("taken as published; leave it out" if self.training else "trained; declare how")
            )
        return self


@stage(
    retries=2, cores=2, memory_gb=2.0, versions=("torch", "pillow", "tokenizers", "open-clip-torch")
)
def train_ranker(
    images: ImageShards, text_tokenizer: TextTokenizer, params: RankerParams, work: Work
) -> Ranker:
    """Train on all pairs, resuming from the newest checkpoint; or fetch what is published."""
    if params.training is None:
        path = fetch(params, work)
    else:
        vocabulary = load_tokenizer(work.fetch(text_tokenizer.units[0])).get_vocab_size()
        config = params.with_sizes({"text_vocabulary": vocabulary})
        length = int(config["text_length"])
        files = prepare(
            images, params.picture_side, work, text_tokenizer, length, pictures=params.pictures
        )
        path = train_network(params, params.training, config, files, work)
    return Ranker(units=(work.add(path, "ranker.safetensors"),))


def fetch(params: RankerParams, work: Work) -> Path:
    """Published weights as a file of ours."""
    # Imported here: the packages behind take seconds, and most runs need none of them.
    from model_zoo.weights import save_network

    module = importlib.import_module(f"model_zoo.{params.network}")
    try:
        network, config = module.fetch_pretrained(params.config)
    except ValueError as error:
        raise PermanentError(f"config: {error}") from error
    path = work.scratch / "ranker.safetensors"
    save_network(path, network, params.network, config)
    return path
