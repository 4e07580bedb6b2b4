"""Train the image tokenizer: a network that turns pictures into codes and back (stage 1)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import ImageShards, ImageTokenizer, Ranker, TextTokenizer
from schemas.stage import operational, stage
from tasks.codebook_alarm import CollapseAlarm
from tasks.evaluation.judged import Judged
from tasks.prepared import Loading, prepare
from tasks.training_process import TrainParams, train_network


class ImageTokenizerParams(TrainParams):
    """Which network, how it is trained, and at which size pictures are given to it."""

    network: str = "dvae"
    picture_side: int = Field(gt=0)
    """Pixels a side at which pictures are kept; the network's random crops are taken from these."""
    pictures: Loading = operational("prepared")
    """Where they are read from: `prepared` files of 3·picture_side² bytes a picture or, where that
    is too much, the `shards`, from which they are decoded in every epoch. The weights are the same.
    """
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures, chosen by their keys, that is not trained on but judged by."""
    judged: Judged | None = operational(None)
    """Whether and how reconstructions are measured on the way; those of pictures that are trained
    on where none is held out, which the names of the metrics say."""

    def sources(self) -> tuple[str, ...]:
        """Inception's weights, if they are declared."""
        return (self.judged.inception,) if self.judged and self.judged.inception else ()


@stage(retries=2, cores=2, memory_gb=2.0, versions=("torch", "pillow"))
def train_image_tokenizer(
    images: ImageShards, params: ImageTokenizerParams, work: Work,
    text_tokenizer: TextTokenizer | None = None, ranker: Ranker | None = None,
) -> ImageTokenizer:  # fmt: skip
    """Train on all pictures that are not held out; resumes from its newest checkpoint.

    Args:
        ranker: rFID is measured on its features; `text_tokenizer` is the one that it reads with.
    """
    if ranker and not (params.judged and text_tokenizer):
        missing = "judged" if text_tokenizer else "text_tokenizer"
        raise PermanentError(f"{missing}: the ranker judges reconstructions; declare this as well")
    judge: Any = None
    if params.judged:
        # By name: what is measured bears on no weight, so its code is no part of the identity.
        module = importlib.import_module("tasks.evaluation.reconstructions")
        judge = module.build_judge(
            images, params.held_out, params.judged, work, text_tokenizer, ranker
        )
    alarm = CollapseAlarm(work.message, work.metrics())

    def notice(metrics: Mapping[str, float], step: int) -> None:
        alarm(metrics, step)
        while judge and judge.notes:
            work.message(judge.notes.pop(0))

    files = prepare(
        images, params.picture_side, work, held_out=params.held_out, pictures=params.pictures
    )
    path = train_network(params, params.training, params.config, files, work, judge, notice)
    return ImageTokenizer(units=(work.add(path, f"{params.network}.safetensors"),))
