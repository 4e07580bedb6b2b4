"""Train the image tokenizer: a network that turns pictures into codes and back (stage 1)."""

from __future__ import annotations

from pydantic import Field

from infra.work import Work
from schemas.artifact import ImageShards, ImageTokenizer
from schemas.stage import stage
from tasks.prepared import prepare
from tasks.training_process import TrainParams, train_network


class ImageTokenizerParams(TrainParams):
    """Which network, how it is trained, and at which size pictures are given to it."""

    network: str = "dvae"
    picture_side: int = Field(gt=0)
    """Pixels a side at which pictures are kept; the network's random crops are taken from these."""


@stage(retries=2, cores=2, memory_gb=2.0, versions=("torch", "pillow"))
def train_image_tokenizer(
    images: ImageShards, params: ImageTokenizerParams, work: Work
) -> ImageTokenizer:
    """Train on all pictures; resumes from its newest checkpoint."""
    files = prepare(images, params.picture_side, work)
    path = train_network(params, params.training, params.config, files, work)
    return ImageTokenizer(units=(work.add(path, f"{params.network}.safetensors"),))
