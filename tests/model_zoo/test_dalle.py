"""The transformer against the formulas of the paper, written out slowly."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model_zoo.dalle import Dalle, DalleConfig, DalleRecipe, build_recipe
from model_zoo.generators import Sampling
from model_zoo.sampler import sample
from model_zoo.training.precision import set_precision
from model_zoo.transformer import Attention, Feedforward

SIZES = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 8, "grid_height": 2,
    "grid_width": 3, "width": 16, "heads": 2, "layers": 3, "conv_kernel": 3,
}  # fmt: skip


def _recipe(**changes: object) -> DalleRecipe:
    torch.manual_seed(0)
    return build_recipe({**SIZES, **changes})


def _batch(size: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(0, 20, (size, 4))
    tokens[0, 2:] = -1
    return {"tokens": tokens, "codes": torch.randint(0, 8, (size, 6))}


def _normalise(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / scale * norm.weight + norm.bias


def _attend(attention: Attention, x: Tensor, allowed: Tensor) -> Tensor:
    """One sample's attention, [T, D], head by head and position by position."""
    width = x.shape[1] // attention.heads
    q, k, v = (_normalise(x, attention.norm) @ attention.qkv.weight.T + attention.qkv.bias).chunk(
        3, dim=1
    )
    heads = torch.zeros_like(x)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for place in range(len(x)):
            seen = allowed[place].nonzero()[:, 0]
            weights = torch.softmax(k[seen, part] @ q[place, part] / math.sqrt(width), dim=0)
            heads[place, part] = weights @ v[seen, part]
    return heads @ attention.out.weight.T + attention.out.bias


def _feed(block: Feedforward, x: Tensor) -> Tensor:
    hidden = _normalise(x, block.norm) @ block.expand.weight.T + block.expand.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ block.out.weight.T + block.out.bias


def _plain_loss(network: Dalle, tokens: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean negative log-likelihood of one sample's caption tokens, and of its codes."""
    config, stream = network.config, [network.start]
    ids = [config.text_vocabulary + i if t < 0 else int(t) for i, t in enumerate(tokens)]
    for place, token in enumerate(ids):
        position = network.text_position.weight[place]
        stream.append(network.text_embedding.weight[token] + position)
    for place, code in enumerate(codes[:-1]):
        row, column = divmod(place, config.grid_width)
        position = network.row.weight[row] + network.column.weight[column]
        stream.append(network.image_embedding.weight[code] + position)
    x = torch.stack(stream)
    for layer, mask in zip(network.each_layer(), network.masks(), strict=True):
        x = x + _attend(layer.attention.branch, x, mask)
        x = x + _feed(layer.feedforward.branch, x)
    x = _normalise(x, network.norm)
    text = [network.text_head(x[i]).log_softmax(0)[token] for i, token in enumerate(ids)]
    image = [
        network.image_head(x[len(ids) + i]).log_softmax(0)[code] for i, code in enumerate(codes)
    ]
    return -torch.stack(text).mean(), -torch.stack(image).mean()


@pytest.mark.parametrize("weight", [1 / 8, 0.5])
def test_loss_is_the_papers_formula(weight: float) -> None:
    recipe, batch = _recipe(text_weight=weight), _batch()
    loss, metrics = recipe.loss(batch, 0, torch.Generator())
    plain = [
        _plain_loss(recipe.network, *sample)
        for sample in zip(batch["tokens"], batch["codes"], strict=True)
    ]
    text, image = (torch.stack(part).mean() for part in zip(*plain, strict=True))
    torch.testing.assert_close(metrics["text_loss"], text)
    torch.testing.assert_close(metrics["image_loss"], image)
    torch.testing.assert_close(loss, weight * text + (1 - weight) * image)


def test_a_declared_share_of_samples_is_trained_without_caption() -> None:
    recipe, batch = _recipe(caption_drop=0.3), _batch(2000)
    seen: list[Tensor] = []
    recipe.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for seed in (2, 2, 3):
            recipe.loss(batch, 0, torch.Generator().manual_seed(seed))
    without = (seen[0] == -1).all(dim=1)
    assert 0.27 < without.float().mean() < 0.33
    assert torch.equal(seen[0][~without], batch["tokens"][~without])
    assert torch.equal(seen[1], seen[0])
    assert not torch.equal(seen[2], seen[0])


def test_nothing_depends_on_what_comes_later() -> None:
    network, batch = _recipe().network, _batch(1)
    tokens, codes = batch["tokens"], batch["codes"]
    text, image = network(tokens, codes)
    for place in range(4):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % 20
        other, _ = network(changed, codes)
        assert torch.equal(other[0, : place + 1], text[0, : place + 1])
        assert place == 3 or not torch.equal(other[0, place + 1], text[0, place + 1])
    for place in range(6):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % 8
        other_text, other = network(tokens, changed)
        assert torch.equal(other_text, text)
        assert torch.equal(other[0, : place + 1], image[0, : place + 1])


def test_each_caption_position_has_a_padding_token_of_its_own() -> None:
    network = _recipe().network
    tokens = torch.tensor([[5, -1, -1, -1]])
    assert network.text_ids(tokens).tolist() == [[5, 21, 22, 23]]


def test_16_bit_blocks_stay_near_32_bits_and_give_fp32_logits_and_gradients() -> None:
    recipe, batch = _recipe(), _batch()
    exact, _ = recipe.loss(batch, 0, torch.Generator())
    set_precision(recipe.network, "bf16")
    text, image = recipe.network(batch["tokens"], batch["codes"])
    loss, _ = recipe.loss(batch, 0, torch.Generator())
    loss.backward()
    assert text.dtype == image.dtype == loss.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32
               for p in recipe.network.parameters())  # fmt: skip
    assert loss != exact  # 16 bits were used
    torch.testing.assert_close(loss, exact, rtol=5e-3, atol=0)


def test_only_matrices_of_blocks_decay() -> None:
    recipe = _recipe()
    decaying = {n for n, p in recipe.network.named_parameters() if recipe.decay(n, p)}
    assert decaying == {
        f"layers.{i}.{name}.weight" for i in range(3)
        for name in ("attention.branch.qkv", "attention.branch.out",
                     "feedforward.branch.expand", "feedforward.branch.out")
    }  # fmt: skip


def test_the_paper_s_twelve_billion() -> None:
    with torch.device("meta"):
        network = Dalle(DalleConfig(
            text_vocabulary=16384, text_length=256, image_vocabulary=8192, grid_height=32,
            grid_width=32, width=3968, heads=62, layers=64,
        ))  # fmt: skip
    blocks = sum(p.numel() for p in network.layers.parameters())
    assert round(blocks / 1e9, 2) == 12.10  # 12.09 in matrices, the rest gains and biases
    assert round(sum(p.numel() for p in network.parameters()) / 1e9, 1) == 12.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 15}, "width: 15 does not divide into 2 heads"),
        ({"attention": ["row"]}, "attention: 1 patterns for 3 layers"),
        ({"conv_kernel": 4}, "conv_kernel: 4 has no centre"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _recipe(**changes)


def _write(path: Path, tokens: Tensor, codes: Tensor) -> Path:
    save_file({"tokens": tokens.int(), "codes": codes.int()}, path)
    return path


def test_data_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    tokens, codes = torch.zeros(2, 4), torch.zeros(2, 1, 2, 3)
    refused = [
        (tokens, torch.zeros(2, 1, 3, 3), r"codes of a \(3, 3\) grid.*\(2, 3\)"),
        (torch.zeros(2, 5), codes, "captions of 5 positions.*text_length 4"),
        (tokens + 20, codes, "tokens run from 20 to 20, but the network's from -1 to 19"),
        (tokens, codes + 8, "codes run from 8 to 8, but the network's from 0 to 7"),
        (torch.zeros(0, 4), torch.zeros(0, 1, 2, 3), "not one pair"),
    ]
    for number, (some_tokens, some_codes, words) in enumerate(refused):
        path = _write(tmp_path / f"{number}.safetensors", some_tokens, some_codes)
        with pytest.raises(ValueError, match=words):
            _recipe().dataset([path], seed=0)


def test_every_epoch_draws_a_crop_by_seed_and_epoch_only(tmp_path: Path) -> None:
    codes = torch.arange(5).repeat(40, 1).view(40, 5, 1, 1).expand(40, 5, 2, 3)
    path = _write(tmp_path / "codes.safetensors", torch.zeros(40, 4), codes.contiguous())
    pairs = _recipe().dataset([path], seed=7)
    first = pairs.batch(np.arange(40), 0)["codes"][:, 0]
    assert set(first.tolist()) == {0, 1, 2, 3, 4}
    again = pairs.batch(np.array([9, 3]), 0)["codes"][:, 0]
    assert again.tolist() == [first[9], first[3]]
    assert not torch.equal(pairs.batch(np.arange(40), 1)["codes"][:, 0], first)


def test_every_epoch_draws_a_split_of_the_caption_where_there_are_several(tmp_path: Path) -> None:
    splits = torch.arange(5).repeat(40, 1).view(40, 5, 1).expand(40, 5, 4)
    path = tmp_path / "codes.safetensors"
    save_file({
        "tokens": torch.full((40, 4), 9).int(), "codes": torch.zeros(40, 1, 2, 3).int(),
        "token_variants": splits.int().contiguous(),
    }, path)  # fmt: skip
    pairs = _recipe().dataset([path], seed=7)
    epochs = [pairs.batch(np.arange(40), epoch)["tokens"][:, 0] for epoch in (0, 1, 0)]
    assert set(epochs[0].tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])


def test_eight_pairs_are_learned_by_heart_and_drawn_again() -> None:
    recipe = _recipe(width=32)
    draw = torch.Generator().manual_seed(5)
    batch = {
        "tokens": torch.randint(0, 20, (8, 4), generator=draw),
        "codes": torch.randint(0, 8, (8, 6), generator=draw),
    }
    optimizer = torch.optim.AdamW(recipe.network.parameters(), lr=1e-2)
    for step in range(150):
        loss, metrics = recipe.loss(batch, step, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["image_loss"] < 0.01
    drawn = sample(recipe.network, batch["tokens"], torch.arange(16).view(8, 2), Sampling())
    for candidate in range(2):
        assert torch.equal(drawn[:, candidate].flatten(1), batch["codes"])


def test_embeddings_are_drawn_as_wide_as_declared_and_nothing_else_changes() -> None:
    networks = []
    for std in (0.02, 0.3):
        torch.manual_seed(0)
        networks.append(build_recipe({**SIZES, "embedding_std": std}).network.state_dict())
    for name, narrow in networks[0].items():
        wide = networks[1][name]
        embeds = "embedding" in name or name in ("start", "text_position.weight")
        embeds = embeds or name.startswith(("row.", "column."))
        torch.testing.assert_close(wide, narrow * (15 if embeds else 1))
