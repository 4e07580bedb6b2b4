"""Eight pairs are learned by heart, and their captions give back the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from infra.demo_web.drawing import random_pairs
from model_zoo.codebook import start_codebook
from model_zoo.dvae import DVAE, DVAEConfig, psnr
from model_zoo.generators import Generator, read_sampling
from model_zoo.weights import build_recipe
from tests.model_zoo.golden import pictures

PAIRS, LENGTH = 8, 12
DVAE_SIZES = {
    "resolution": 32, "patch": 4, "vocabulary": 96, "width": 96, "multipliers": (1,),
    "blocks": 1, "decoder_width": 96, "stem_kernel": 1, "centred": True,
}  # fmt: skip
# Steps of training, settings of the network, and how it draws what it is surest of.
NETWORKS: dict[str, tuple[int, dict[str, object], dict[str, object]]] = {
    "dalle": (120, {"conv_kernel": 3, "embedding_std": 0.3}, {"temperature": 0}),
    "maskgit": (
        250, {"label_smoothing": 0.0}, {"steps": 8, "temperature": 0, "choice_temperature": 0},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network gains nothing from a second thread, and waits for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Pairs:
    originals: Tensor  # uint8 [8, 3, 32, 32]
    tokens: Tensor  # int64 [8, 12], -1 after the caption
    words: int
    codes: Tensor  # int64 [8, 64]
    tokenizer: DVAE


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    torch.manual_seed(0)
    tokenizer = DVAE(DVAEConfig.model_validate(DVAE_SIZES)).eval()
    originals = pictures(PAIRS, 32)
    start_codebook(tokenizer, originals, seed=0)
    captions = [pair.caption.split()[:LENGTH] for pair in random_pairs(PAIRS, 11)]
    words = sorted({word for caption in captions for word in caption})
    tokens = torch.full((PAIRS, LENGTH), -1)
    for row, caption in zip(tokens, captions, strict=True):
        row[: len(caption)] = torch.tensor([words.index(word) for word in caption])
    assert len(tokens.unique(dim=0)) == PAIRS
    codes = tokenizer.codes(originals).flatten(1)
    assert len(codes.unique(dim=0)) == PAIRS
    return Pairs(originals, tokens, len(words), codes, tokenizer)


@pytest.mark.parametrize("name", NETWORKS)
def test_captions_give_back_the_pictures_that_were_learned(name: str, pairs: Pairs) -> None:
    steps, own, how = NETWORKS[name]
    torch.manual_seed(0)
    sizes = {
        "text_vocabulary": pairs.words, "text_length": LENGTH, "image_vocabulary": 96,
        "grid_height": 8, "grid_width": 8, "width": 64, "heads": 2, "layers": 2,
    }  # fmt: skip
    recipe = build_recipe(name, {**sizes, **own})
    optimizer = torch.optim.AdamW(recipe.network.parameters(), lr=5e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    batch = {"tokens": pairs.tokens, "codes": pairs.codes}
    losses = []
    for step in range(steps):
        loss, metrics = recipe.loss(batch, step, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(metrics["image_loss"]))
    assert losses[0] > 4  # 4.56 nats are a guess among 96 codes
    assert max(losses[-10:]) < 0.02

    generator = Generator(name, recipe.network.eval(), LENGTH)
    settings = read_sampling(name, how)
    drawn = generator.draw(pairs.tokens, torch.zeros(PAIRS, 1).long(), settings)[:, 0]
    assert torch.equal(drawn.flatten(1), pairs.codes)
    shown = pairs.tokenizer.decode(drawn)
    assert torch.equal(shown, pairs.tokenizer.decode(pairs.codes.view(-1, 8, 8)))
    assert float(psnr(shown, pairs.originals)) > 20
