import math

import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from model_zoo.clip import (
    CLIP,
    CLIPConfig,
    blurred,
    build_recipe,
    contrastive_loss,
    shifted,
)
from model_zoo.weights import load_network, save_network

SMALL = {
    "text_vocabulary": 20, "text_length": 6, "resolution": 16, "patch": 4, "features": 16,
    "image_width": 32, "image_layers": 1, "text_width": 32, "text_layers": 1, "head_width": 16,
}  # fmt: skip


def _network(**changes) -> CLIP:
    torch.manual_seed(0)
    return CLIP(CLIPConfig(**{**SMALL, **changes})).eval()


def _images(count=4, height=16, width=16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)


def _tokens() -> torch.Tensor:
    return torch.tensor(
        [
            [3, 4, 5, -1, -1, -1],
            [7, -1, -1, -1, -1, -1],
            [3, 4, 5, 6, 8, 9],
            [19, 0, -1, -1, -1, -1],
        ]
    )


def _features(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=-1)


def test_features_have_length_one_and_scores_are_their_cosines():
    network = _network()
    images, texts = network.encode_images(_images()), network.encode_texts(_tokens())

    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    wanted = torch.nn.functional.cosine_similarity(images, texts)
    torch.testing.assert_close(network.score(_images(), _tokens()), wanted)


def test_what_follows_a_caption_does_not_matter():
    network = _network()

    alone = network.encode_texts(torch.tensor([[3, 4, 5]]))

    torch.testing.assert_close(network.encode_texts(_tokens())[:1], alone)


def test_every_token_of_a_caption_matters_also_the_last_of_the_longest():
    network = _network()
    tokens = _tokens()[2:3]
    features = network.encode_texts(tokens)
    for place in range(6):
        other = tokens.clone()
        other[0, place] = 19
        assert (network.encode_texts(other) - features).abs().max() > 1e-4


def test_pictures_of_another_size_are_resized_by_area():
    network = _network()
    images = _images().repeat_interleave(2, 2).repeat_interleave(3, 3)

    torch.testing.assert_close(network.encode_images(images), network.encode_images(_images()))


def test_captions_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="captions of 7 tokens; text_length is 6"):
        _network().encode_texts(torch.zeros(1, 7, dtype=torch.long))


def test_the_loss_is_open_clip_s_where_no_caption_occurs_twice():
    images, texts = _features(5, 0), _features(5, 1)
    tokens, scale = torch.arange(5)[:, None], torch.tensor(14.0)

    loss, _ = contrastive_loss(images, texts, scale, tokens)

    torch.testing.assert_close(loss, open_clip.ClipLoss()(images, texts, scale))


def test_equal_captions_are_no_negatives_of_each_other():
    images, texts = _features(4, 0), _features(4, 1)
    tokens = torch.tensor([[1, 2], [3, -1], [1, 2], [4, 5]])

    loss, _ = contrastive_loss(images, texts, torch.tensor(10.0), tokens)

    logits = (10 * images @ texts.t()).double().numpy()
    each = []
    for table in (logits, logits.T):
        for row in range(4):
            rivals = [c for c in range(4) if c == row or not torch.equal(tokens[c], tokens[row])]
            each.append(-table[row, row] + np.log(np.exp(table[row, rivals]).sum()))
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)


def test_the_scale_has_an_upper_bound():
    network = _network()
    with torch.no_grad():
        network.towers.logit_scale.fill_(9.0)

    assert network.scale.item() == pytest.approx(100)


def test_shifting_moves_a_picture_and_repeats_its_edge():
    image = torch.arange(64).reshape(1, 1, 8, 8).expand(50, 3, 8, 8)
    padded = torch.nn.functional.pad(image.float(), (2, 2, 2, 2), mode="replicate")
    places = {
        (dy, dx): padded[0, :, dy : dy + 8, dx : dx + 8] for dy in range(5) for dx in range(5)
    }

    moved = shifted(image, 2, torch.Generator().manual_seed(0))

    found = [
        next(place for place, wanted in places.items() if torch.equal(one.float(), wanted))
        for one in moved
    ]
    assert len(set(found)) > 10


def test_blurring_mixes_a_picture_with_its_means():
    image = torch.zeros(1, 3, 5, 5)
    image[:, :, 2, 2] = 90

    mixed = blurred(image, 1.0, torch.Generator().manual_seed(0))

    assert 10 < mixed[0, 0, 2, 2] < 90
    assert mixed[0, 0, 1, 3].item() == pytest.approx((90 - mixed[0, 0, 2, 2].item()) / 8)
    torch.testing.assert_close(mixed.sum(), image.sum())
    assert torch.equal(blurred(image, 0.0, torch.Generator()), image)


def test_training_finds_the_partner_of_each_picture(tmp_path):
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 240]])
    kinds = torch.arange(64) % 4
    images = colours[kinds][:, :, None, None].expand(64, 3, 16, 16)
    tokens = torch.full((64, 6), -1)
    tokens[:, :2] = torch.stack([torch.full((64,), 9), kinds], dim=1)
    noise = torch.randint(-10, 11, images.shape, generator=torch.Generator().manual_seed(0))
    save_file(
        {"images": (images + noise).clamp(0, 255).to(torch.uint8), "tokens": tokens.int()},
        tmp_path / "pairs.safetensors",
    )
    torch.manual_seed(0)
    recipe = build_recipe({**SMALL, "blur": 0.5})
    data = recipe.dataset([tmp_path / "pairs.safetensors"], seed=0)
    optimiser = torch.optim.AdamW(recipe.network.parameters(), 3e-3)
    for step in range(40):
        batch = data.batch(np.arange(64).reshape(4, 16)[step % 4], epoch=step // 4)
        loss, metrics = recipe.loss(batch, step, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with torch.no_grad():
        pictures = recipe.network.encode_images(images[:4].to(torch.uint8))
        scores = pictures @ recipe.network.encode_texts(tokens[:4]).t()
    assert scores.argmax(0).tolist() == scores.argmax(1).tolist() == [0, 1, 2, 3]
    assert set(metrics) == {"accuracy", "scale"}


def test_the_recipe_counts_patches_and_captions():
    recipe = build_recipe(SMALL)

    assert recipe.tokens == 16 + 6
    decaying = {n for n, p in recipe.network.named_parameters() if recipe.decay(n, p)}
    assert "towers.logit_scale" not in decaying
    assert "towers.visual.conv1.weight" in decaying
    assert not any(name.endswith("bias") for name in decaying)


def test_it_is_built_without_memory_where_only_sizes_are_looked_at():
    with torch.device("meta"):
        recipe = build_recipe({"text_vocabulary": 500, "text_length": 32})

    assert all(parameter.is_meta for parameter in recipe.network.parameters())


def test_a_saved_ranker_gives_the_same_scores(tmp_path):
    network = _network()
    save_network(tmp_path / "clip.safetensors", network, "clip", SMALL)

    loaded = load_network(tmp_path / "clip.safetensors")

    assert torch.equal(loaded.score(_images(), _tokens()), network.score(_images(), _tokens()))
    assert math.isfinite(loaded.scale.item())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": 5}, "resolution=16 does not divide by patch=5"),
        ({"text_width": 40}, "text_width=40 does not divide by head_width=16"),
        ({"text_length": 0}, "text_length"),
        ({"width": 5}, "width"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        CLIPConfig(**{**SMALL, **changes})
