"""Parallel decoding gives what a slow decoder gives that does one candidate, code by code."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from model_zoo import maskgit_sampler
from model_zoo.maskgit import Maskgit, build_recipe
from model_zoo.maskgit_sampler import MaskgitSampling, masked_after, sample

SIZES = {
    "text_vocabulary": 20, "text_length": 5, "image_vocabulary": 16, "grid_height": 3,
    "grid_width": 4, "width": 32, "heads": 2, "layers": 3, "caption_drop": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Maskgit:
    torch.manual_seed(0)
    network = build_recipe(SIZES).network.eval()
    for parameter in network.parameters():  # far from uniform, so that every layer matters
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def tokens() -> Tensor:
    tokens = torch.randint(0, 20, (3, 5), generator=torch.Generator().manual_seed(2))
    tokens[0, 2:] = -1
    return tokens


@torch.no_grad()
def _plain(
    network: Maskgit, tokens: Tensor, codes: list[int], seed: int, sampling: MaskgitSampling
) -> Tensor:
    """One candidate of one caption [1, L]; -1 among the codes is masked."""
    random = torch.Generator().manual_seed(seed)
    numbers = torch.rand(sampling.steps, 2, 12, generator=random, dtype=torch.float64).tolist()
    start, codes = codes.count(-1), list(codes)
    for step in range(1, sampling.steps + 1):
        masked = [place for place in range(12) if codes[place] == -1]
        if not masked:
            break
        logits = network(tokens, torch.tensor([codes]))[0]
        free = network(torch.full_like(tokens, -1), torch.tensor([codes]))[0]
        logits = (free + sampling.guidance * (logits - free)).double()
        warmth = sampling.choice_temperature * (1 - step / sampling.steps)
        confidence = {}
        for place in masked:
            codes[place] = _draw(logits[place], numbers[step - 1][0][place], sampling.temperature)
            noise = -math.log(-math.log(numbers[step - 1][1][place]))
            chance = logits[place].softmax(0)[codes[place]].item()
            confidence[place] = math.log(chance) + warmth * noise
        left = math.ceil(start * math.cos(math.pi / 2 * step / sampling.steps))
        left = 0 if step == sampling.steps else min(left, len(masked) - 1)
        for place in sorted(masked, key=confidence.__getitem__)[:left]:
            codes[place] = -1
    return torch.tensor(codes).view(3, 4)


def _draw(logits: Tensor, number: float, temperature: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    reached = 0.0
    for code, chance in enumerate((logits / temperature).softmax(0).tolist()):
        reached += chance
        if number < reached:
            return code
    raise AssertionError("chances do not add up to 1")


@pytest.mark.parametrize(
    "sampling",
    [
        MaskgitSampling(),
        MaskgitSampling(steps=8, temperature=0.7, choice_temperature=1),
        MaskgitSampling(steps=1),
        MaskgitSampling(steps=30),
        MaskgitSampling(temperature=0, choice_temperature=0),
        MaskgitSampling(steps=5, guidance=3),
    ],
    ids=str,
)
def test_parallel_equals_one_by_one(
    network: Maskgit, tokens: Tensor, sampling: MaskgitSampling
) -> None:
    seeds = torch.arange(100, 106).view(3, 2)
    drawn = sample(network, tokens, seeds, sampling)
    for prompt in range(3):
        for candidate in range(2):
            seed = int(seeds[prompt, candidate])
            plain = _plain(network, tokens[prompt : prompt + 1], [-1] * 12, seed, sampling)
            assert torch.equal(drawn[prompt, candidate], plain)


@pytest.mark.parametrize("rows", [1, 2, 4, 7])
def test_a_seed_gives_the_same_picture_in_every_batch(
    network: Maskgit, tokens: Tensor, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    seeds = torch.arange(9).view(3, 3)
    together = sample(network, tokens, seeds)
    monkeypatch.setattr(maskgit_sampler, "ROWS", rows)
    assert torch.equal(sample(network, tokens, seeds), together)
    alone = sample(network, tokens[1:2], seeds[1:2, 2:])
    assert torch.equal(alone[0, 0], together[1, 2])


def test_the_schedule_is_the_cosine_and_every_step_draws_something() -> None:
    def schedule(start: int, steps: int) -> list[int]:
        left = [start]
        for step in range(1, steps + 1):
            after = masked_after(step, steps, torch.tensor([start]), torch.tensor([left[-1]]))
            left.append(int(after))
        return left

    closed = [math.ceil(256 * math.cos(math.pi / 2 * step / 8)) for step in range(8)]
    assert schedule(256, 8) == [*closed, 0] == [256, 252, 237, 213, 182, 143, 98, 50, 0]
    assert schedule(12, 12) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert schedule(3, 8) == [3, 2, 1, 0, 0, 0, 0, 0, 0]
    assert schedule(64, 1) == [64, 0]
    assert schedule(0, 4) == [0, 0, 0, 0, 0]


def test_inpainting_keeps_what_is_given_and_draws_the_rest(
    network: Maskgit, tokens: Tensor
) -> None:
    given = torch.randint(0, 16, (3, 3, 4), generator=torch.Generator().manual_seed(4))
    drawn = torch.zeros(3, 3, 4, dtype=torch.bool)
    drawn[0, 1:] = drawn[1, :, 2] = True  # eight codes, three, and none: each has its own schedule
    seeds, sampling = torch.arange(6).view(3, 2), MaskgitSampling(steps=5, guidance=2)
    found = sample(network, tokens, seeds, sampling, given.masked_fill(drawn, -1))
    for prompt in range(3):
        for candidate in range(2):
            one = found[prompt, candidate]
            assert torch.equal(one[~drawn[prompt]], given[prompt][~drawn[prompt]])
            shown = given[prompt].masked_fill(drawn[prompt], -1).flatten().tolist()
            seed = int(seeds[prompt, candidate])
            plain = _plain(network, tokens[prompt : prompt + 1], shown, seed, sampling)
            assert torch.equal(one, plain)
    assert not torch.equal(found[0, 0], found[0, 1])


def test_what_is_given_bears_on_what_is_drawn(network: Maskgit, tokens: Tensor) -> None:
    drawn = torch.zeros(1, 3, 4, dtype=torch.bool)
    drawn[0, 2] = True
    seeds = torch.arange(20).view(1, 20)
    given = torch.zeros(1, 3, 4, dtype=torch.long)
    one, other = (
        sample(network, tokens[:1], seeds, given=(given + code).masked_fill(drawn, -1))[:, :, 2]
        for code in (0, 5)
    )
    assert not torch.equal(one, other)


def test_guidance_without_caption_draws_the_same_for_every_caption(
    network: Maskgit, tokens: Tensor
) -> None:
    seeds = torch.arange(4).expand(3, 4)
    first, second, third = sample(network, tokens, seeds, MaskgitSampling(guidance=0))
    assert torch.equal(first, second)
    assert torch.equal(second, third)


def test_what_is_shown_stays_and_changes_nothing(
    network: Maskgit, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maskgit_sampler, "ROWS", 4)  # two batches
    seen: list[Tensor] = []
    seeds, settings = torch.arange(6).view(3, 2), MaskgitSampling(steps=5)
    drawn = sample(network, tokens, seeds, settings, watch=lambda one: seen.append(one.clone()))
    assert torch.equal(drawn, sample(network, tokens, seeds, settings))
    assert len(seen) == 2 * 5
    known = [one >= 0 for one in seen]
    for one, there in zip(seen, known, strict=True):
        assert torch.equal(one[there], drawn[there])
    assert all((before <= after).all() for before, after in itertools.pairwise(known))
    counts = [int(there.sum()) for there in known]
    assert counts == sorted(set(counts))
    assert counts[4] == 4 * 12
    assert known[-1].all()


def test_wrong_requests_are_refused(network: Maskgit, tokens: Tensor) -> None:
    seeds, grid = torch.zeros(3, 1).long(), torch.zeros(3, 3, 4).long()
    with pytest.raises(ValueError, match=r"tokens: shape \(3, 4\).*\[P, 5\]"):
        sample(network, tokens[:, :4], seeds)
    with pytest.raises(ValueError, match=r"seeds: shape \(2, 1\).*\[3, candidates\]"):
        sample(network, tokens, seeds[:2])
    with pytest.raises(ValueError, match=r"given: shape \(3, 4, 3\).* \(3, 3, 4\)"):
        sample(network, tokens, seeds, given=grid.view(3, 4, 3))
    with pytest.raises(ValueError, match=r"given: shape \(1, 3, 4\).* \(3, 3, 4\)"):
        sample(network, tokens, seeds, given=grid[:1])
    with pytest.raises(ValueError, match="given: codes from 0 to 16.* below 16"):
        sample(network, tokens, seeds, given=grid.index_fill(2, torch.tensor([1]), 16))
    bare = build_recipe({**SIZES, "caption_drop": 0.0}).network
    with pytest.raises(ValueError, match=r"guidance=2: .*caption_drop=0.*leave guidance at 1"):
        sample(bare, tokens, seeds, MaskgitSampling(guidance=2))
