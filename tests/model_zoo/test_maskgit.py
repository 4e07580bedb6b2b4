"""MaskGIT against the formulas of the paper, written out slowly, and what its training sees."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model_zoo.maskgit import Maskgit, MaskgitRecipe, build_recipe
from model_zoo.maskgit import draw_masks as draw
from model_zoo.maskgit_sampler import MaskgitSampling, sample
from model_zoo.training.precision import set_precision
from model_zoo.transformer import Attention, Feedforward

SIZES = {
    "text_vocabulary": 20, "text_length": 4, "image_vocabulary": 8, "grid_height": 2,
    "grid_width": 3, "width": 16, "heads": 2, "layers": 3,
}  # fmt: skip


def _recipe(**changes: object) -> MaskgitRecipe:
    torch.manual_seed(0)
    return build_recipe({**SIZES, **changes})


def _batch(size: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(0, 20, (size, 4))
    tokens[0, 2:] = -1
    return {"tokens": tokens, "codes": torch.randint(0, 8, (size, 6))}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normalise(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / scale * norm.weight + norm.bias


def _attend(attention: Attention, x: Tensor) -> Tensor:
    """One sample's attention, [T, D], head by head and position by position."""
    width = x.shape[1] // attention.heads
    q, k, v = (_normalise(x, attention.norm) @ attention.qkv.weight.T + attention.qkv.bias).chunk(
        3, dim=1
    )
    heads = torch.zeros_like(x)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        for place in range(len(x)):
            weights = torch.softmax(k[:, part] @ q[place, part] / math.sqrt(width), dim=0)
            heads[place, part] = weights @ v[:, part]
    return heads @ attention.out.weight.T + attention.out.bias


def _feed(block: Feedforward, x: Tensor) -> Tensor:
    hidden = _normalise(x, block.norm) @ block.expand.weight.T + block.expand.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ block.out.weight.T + block.out.bias


def _plain(network: Maskgit, tokens: Tensor, codes: Tensor) -> Tensor:
    """Log-probabilities of the codes of one sample, [N, vocabulary]; -1 is masked or padding."""
    config, stream = network.config, []
    for place, token in enumerate(tokens.tolist()):
        known = token if token >= 0 else config.text_vocabulary + place
        stream.append(network.text_embedding.weight[known] + network.text_position.weight[place])
    for place, code in enumerate(codes.tolist()):
        row, column = divmod(place, config.grid_width)
        position = network.row.weight[row] + network.column.weight[column]
        known = code if code >= 0 else config.image_vocabulary
        stream.append(network.image_embedding.weight[known] + position)
    x = torch.stack(stream)
    for layer in network.layers:
        x = x + _attend(layer.attention.branch, x)
        x = x + _feed(layer.feedforward.branch, x)
    x = _normalise(x, network.norm)[len(tokens) :]
    return (x @ network.head.weight.T + network.head.bias).log_softmax(1)


@pytest.mark.parametrize("smoothing", [0.1, 0.0])
def test_loss_is_the_smoothed_cross_entropy_of_masked_codes_alone(smoothing: float) -> None:
    recipe, batch = _recipe(label_smoothing=smoothing), _batch()
    seen: list[tuple[Tensor, Tensor]] = []
    recipe.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    loss, metrics = recipe.loss(batch, 0, _seeded(3))
    ((tokens, shown),) = seen
    losses, plain, hits = [], [], []
    for row in range(3):
        chances = _plain(recipe.network, tokens[row], shown[row])
        for place in (shown[row] == -1).nonzero()[:, 0]:
            wanted = batch["codes"][row, place]
            label = torch.full((8,), smoothing / 8)
            label[wanted] += 1 - smoothing
            losses.append(-(label * chances[place]).sum())
            plain.append(-chances[place, wanted])
            hits.append(float(chances[place].argmax() == wanted))
    assert torch.equal(shown[shown >= 0], batch["codes"][shown >= 0])
    assert torch.equal(tokens, batch["tokens"])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(metrics["image_loss"], torch.stack(plain).mean())
    assert metrics["right"] == pytest.approx(np.mean(hits))
    assert metrics["masked_share"] == pytest.approx(len(losses) / 18)


def test_every_position_sees_every_other_one() -> None:
    recipe, batch = _recipe(), _batch(1)
    tokens, codes = batch["tokens"], batch["codes"]
    logits = recipe.network(tokens, codes)
    for place in range(4):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % 20
        assert (recipe.network(changed, codes) != logits).any(dim=2).all()
    for place in range(6):
        changed = codes.clone()
        changed[0, place] = -1
        assert (recipe.network(tokens, changed) != logits).any(dim=2).all()


def test_the_masked_share_follows_the_cosine_of_a_uniform_number() -> None:
    masks = draw(20_000, 64, _seeded(0))
    found = masks.sum(dim=1).double()
    for number in range(1, 65):
        # ⌈64·cos(πr/2)⌉ ≤ n exactly where r ≥ arccos(n/64)·2/π.
        wanted = 1 - math.acos(number / 64) * 2 / math.pi
        assert (found <= number).double().mean() == pytest.approx(wanted, abs=0.012)
    assert found.min() >= 1
    assert found.mean() / 64 == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.01)


def test_any_code_is_masked_as_often_as_another() -> None:
    masks = draw(20_000, 6, _seeded(1)).double()
    torch.testing.assert_close(masks.mean(dim=0), masks.mean().expand(6), atol=0.012, rtol=0)
    pairs = masks.T @ masks / len(masks)
    others = pairs[~torch.eye(6, dtype=torch.bool)]
    torch.testing.assert_close(others, others.mean().expand(30), atol=0.012, rtol=0)
    assert torch.equal(draw(5, 6, _seeded(2)), draw(5, 6, _seeded(2)))
    assert not torch.equal(draw(5, 6, _seeded(2)), draw(5, 6, _seeded(3)))


def test_a_declared_share_of_samples_is_trained_without_caption() -> None:
    recipe, batch = _recipe(caption_drop=0.3), _batch(2000)
    seen: list[Tensor] = []
    recipe.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        recipe.loss(batch, 0, _seeded(2))
    without = (seen[0] == -1).all(dim=1)
    assert 0.27 < without.float().mean() < 0.33
    assert torch.equal(seen[0][~without], batch["tokens"][~without])


def test_16_bit_blocks_stay_near_32_bits_and_give_fp32_logits_and_gradients() -> None:
    recipe, batch = _recipe(), _batch()
    exact, _ = recipe.loss(batch, 0, _seeded(0))
    set_precision(recipe.network, "bf16")
    logits = recipe.network(batch["tokens"], batch["codes"])
    loss, _ = recipe.loss(batch, 0, _seeded(0))
    loss.backward()
    assert logits.dtype == loss.dtype == torch.float32
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 15}, "width: 15 does not divide into 2 heads"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"conv_kernel": 3}, "conv_kernel"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _recipe(**changes)


def test_data_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_file({"tokens": torch.zeros(2, 4).int(), "codes": torch.full((2, 1, 2, 3), 8).int()}, path)
    with pytest.raises(ValueError, match="codes run from 8 to 8, but the network's from 0 to 7"):
        _recipe().dataset([path], seed=0)


def test_eight_pairs_are_learned_by_heart_and_drawn_again() -> None:
    recipe = _recipe(width=32, layers=2, label_smoothing=0)
    batch = {
        "tokens": torch.randint(0, 20, (8, 4), generator=_seeded(5)),
        "codes": torch.randint(0, 8, (8, 6), generator=_seeded(6)),
    }
    optimizer = torch.optim.AdamW(recipe.network.parameters(), lr=1e-2)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 400)
        loss, _ = recipe.loss(batch, step, _seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses = [recipe.loss(batch, 0, _seeded(seed))[0].item() for seed in range(20)]
    assert np.mean(losses) < 0.01
    settings = MaskgitSampling(temperature=0, steps=3)
    drawn = sample(recipe.network, batch["tokens"], torch.arange(16).view(8, 2), settings)
    for candidate in range(2):
        assert torch.equal(drawn[:, candidate].flatten(1), batch["codes"])
