"""Small real shards, tokenizers and networks for the tests of stages that use models."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from infra.demo_web.drawing import random_pairs
from infra.shards import Sample, write_shard
from infra.work import Work
from model_zoo.weights import build_recipe, save_network
from schemas.artifact import ImageShards, ImageTokenizer, Prior, Ranker, TextTokenizer, Unit

TEXT_LENGTH = 32
DVAE = {
    "resolution": 32, "vocabulary": 16, "width": 8, "multipliers": [1, 1, 1], "blocks": 1,
    "decoder_width": 8, "kl_warmup": 10, "temperature_steps": 10,
}  # fmt: skip


def add_shards(work: Work, shards: int = 2, pictures: int = 12) -> ImageShards:
    """Shards of the demo's pictures."""
    units = []
    for number in range(shards):
        samples = []
        for index, pair in enumerate(random_pairs(pictures, seed=number)):
            content = io.BytesIO()
            pair.picture.save(content, "PNG")
            key = hashlib.sha256(f"{number}/{index}".encode()).hexdigest()[:32]
            samples.append(Sample(key, content.getvalue(), "png", pair.caption))
        path = work.scratch / f"images-{number:05d}.tar"
        write_shard(path, sorted(samples, key=lambda sample: sample.key))
        units.append(work.add(path, path.name, pictures))
    return ImageShards(units=tuple(units))


def add_text_tokenizer(work: Work) -> TextTokenizer:
    """A byte-level BPE over the demo's captions."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=320, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator((pair.caption for pair in random_pairs(200, seed=9)), trainer)
    path = work.scratch / "tokenizer.json"
    tokenizer.save(str(path))
    return TextTokenizer(units=(work.add(path, path.name),))


def add_image_tokenizer(work: Work) -> ImageTokenizer:
    """A dVAE that has learned nothing."""
    return ImageTokenizer(units=(_add_network(work, "dvae", DVAE, 0),))


def add_prior(work: Work, vocabulary: int, network: str = "dalle", **sizes: int) -> Prior:
    """A prior that has learned nothing; sizes as given, or those of the other parts."""
    config: dict[str, object] = {
        "text_vocabulary": vocabulary, "text_length": TEXT_LENGTH, "image_vocabulary": 16,
        "grid_height": 8, "grid_width": 8, "width": 16, "heads": 2, "layers": 2,
        **sizes,
    }  # fmt: skip
    if network == "dalle":
        config["conv_kernel"] = 3
    return Prior(units=(_add_network(work, network, config, 1),))


def add_ranker(work: Work, vocabulary: int, seed: int = 2) -> Ranker:
    """A ranker that has learned nothing."""
    config = {"text_vocabulary": vocabulary, "text_length": TEXT_LENGTH, "resolution": 32}
    return Ranker(units=(_add_network(work, "clip", config, seed),))


def _add_network(work: Work, name: str, config: Mapping[str, object], seed: int) -> Unit:
    torch.manual_seed(seed)
    path = work.scratch / f"{name}-{seed}.safetensors"
    save_network(path, build_recipe(name, config).network, name, config)
    return work.add(path, path.name)


def vocabulary_of(work: Work, tokenizer: TextTokenizer) -> int:
    """How many tokens a text tokenizer has."""
    path: Path = work.fetch(tokenizer.units[0])
    return Tokenizer.from_file(str(path)).get_vocab_size()
