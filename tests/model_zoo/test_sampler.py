"""Cached sampling gives, code for code, what sampling without a cache gives."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_zoo import sampler
from model_zoo.dalle import Dalle, build_recipe
from model_zoo.draws import choose
from model_zoo.generators import Sampling, load_generator
from model_zoo.sampler import sample
from model_zoo.weights import save_network

SIZES = {
    "text_vocabulary": 20, "text_length": 5, "image_vocabulary": 16, "grid_height": 3,
    "grid_width": 4, "width": 32, "heads": 2, "layers": 6, "conv_kernel": 3, "caption_drop": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Dalle:
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
def _plain(network: Dalle, tokens: Tensor, seed: int, sampling: Sampling) -> Tensor:
    """One candidate of one caption [1, L], the whole stream anew for each code."""
    uniforms = torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codes = torch.zeros(1, 12, dtype=torch.long)
    for place in range(12):
        logits = network(tokens, codes)[1][0, place]
        if sampling.guidance != 1:
            without = network(torch.full_like(tokens, -1), codes)[1][0, place]
            logits = without + sampling.guidance * (logits - without)
        codes[0, place] = choose(logits, uniforms[place], sampling)
    return codes.view(3, 4)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.7, top_k=5),
        Sampling(top_p=0.8),
        Sampling(temperature=0),
        Sampling(guidance=3),
        Sampling(guidance=0, top_k=5),
    ],
    ids=str,
)
def test_cached_equals_uncached(network: Dalle, tokens: Tensor, sampling: Sampling) -> None:
    seeds = torch.arange(100, 106).view(3, 2)
    drawn = sample(network, tokens, seeds, sampling)
    for prompt in range(3):
        for candidate in range(2):
            seed = int(seeds[prompt, candidate])
            plain = _plain(network, tokens[prompt : prompt + 1], seed, sampling)
            assert torch.equal(drawn[prompt, candidate], plain)


@pytest.mark.parametrize("kind", ["row", "column", "convolutional", "full"])
def test_every_pattern_of_attention_is_cached_rightly(tokens: Tensor, kind: str) -> None:
    torch.manual_seed(1)
    network = build_recipe({**SIZES, "layers": 2, "attention": [kind, kind]}).network
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    drawn = sample(network, tokens[:1], torch.tensor([[7]]))
    assert torch.equal(drawn[0, 0], _plain(network, tokens[:1], 7, Sampling()))


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_a_seed_gives_the_same_picture_in_every_batch(
    network: Dalle, tokens: Tensor, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    seeds = torch.arange(9).view(3, 3)
    together = sample(network, tokens, seeds)
    monkeypatch.setattr(sampler, "TOGETHER", most)
    assert torch.equal(sample(network, tokens, seeds), together)
    alone = sample(network, tokens[1:2], seeds[1:2, 2:])
    assert torch.equal(alone[0, 0], together[1, 2])


# Bytes of SIZES: 2 x 32 x 4 a place of a layer. The last of 12 places is no input; of the 11 a row
# layer keeps 10, twice the 5 that it looks at, and the column and the convolutional layer keep all.
CAPTION = 6 * 6 * 256
CANDIDATE = (4 * 10 + 11 + 11) * 256


@pytest.mark.parametrize(
    ("guidance", "fitting", "rows"),
    [(1.0, 1, 1), (1.0, 2, 2), (1.0, 6, 6), (2.0, 1, 2), (2.0, 2, 4), (1.0, 10_000, 9)],
)
def test_so_many_candidates_go_together_as_the_cache_may_hold(
    network: Dalle, tokens: Tensor, guidance: float, fitting: int, rows: int
) -> None:
    seeds, sampling = torch.arange(9).view(3, 3), Sampling(guidance=guidance)
    seen: list[int] = []
    hook = network.image_head.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    prompts = -(-fitting // 3)  # of which each has a caption in the cache
    passes = 1 if guidance == 1 else 2
    bound = passes * (prompts * CAPTION + fitting * CANDIDATE)
    try:
        drawn = sample(network, tokens, seeds, sampling, cache_gb=bound / 1e9)
    finally:
        hook.remove()
    assert max(seen) == rows
    assert torch.equal(drawn, sample(network, tokens, seeds, sampling))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_bound_that_holds_no_candidate_is_refused(
    network: Dalle, tokens: Tensor, guidance: float
) -> None:
    seeds, sampling = torch.arange(9).view(3, 3), Sampling(guidance=guidance)
    least = (CAPTION + CANDIDATE) * (1 if guidance == 1 else 2)
    sample(network, tokens, seeds, sampling, cache_gb=least / 1e9)
    said = f"cache_gb: {(least - 1) / 1e9:g} GB do not hold .* {least / 1e9} GB"
    with pytest.raises(ValueError, match=said):
        sample(network, tokens, seeds, sampling, cache_gb=(least - 1) / 1e9)


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    uniforms = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sampling, kept, temperature in [
        (Sampling(), [0, 1, 2, 3], 1.0),
        (Sampling(temperature=2.0), [0, 1, 2, 3], 2.0),
        (Sampling(top_k=2), [1, 2], 1.0),
        (Sampling(top_p=0.9), [0, 1, 2], 1.0),  # 0.64, 0.24, 0.09, 0.03
        (Sampling(top_p=0.64), [2], 1.0),
    ]:
        drawn = choose(logits.expand(40_000, 4), uniforms, sampling)
        share = torch.bincount(drawn, minlength=4) / 40_000
        wanted = torch.full((4,), -torch.inf)
        wanted[kept] = logits[kept] / temperature
        torch.testing.assert_close(share, wanted.softmax(0), atol=0.01, rtol=0)


def test_an_impossible_code_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    edges = torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64)
    assert choose(logits.expand(2, 3), edges, Sampling()).tolist() == [1, 1]


def test_wrong_shapes_are_refused(network: Dalle, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"tokens: shape \(3, 4\).*\[P, 5\]"):
        sample(network, tokens[:, :4], torch.zeros(3, 1).long())
    with pytest.raises(ValueError, match=r"seeds: shape \(2, 1\).*\[3, candidates\]"):
        sample(network, tokens, torch.zeros(2, 1).long())


def test_guidance_without_caption_draws_the_same_for_every_caption(
    network: Dalle, tokens: Tensor
) -> None:
    seeds = torch.arange(4).expand(3, 4)
    first, second, third = sample(network, tokens, seeds, Sampling(guidance=0))
    assert torch.equal(first, second)
    assert torch.equal(second, third)


def test_guidance_of_a_network_that_always_saw_captions_is_refused(tokens: Tensor) -> None:
    network = build_recipe({**SIZES, "caption_drop": 0.0}).network
    with pytest.raises(ValueError, match=r"guidance=2: .*caption_drop=0.*leave guidance at 1"):
        sample(network, tokens, torch.zeros(3, 1).long(), Sampling(guidance=2))


def test_a_generator_is_loaded_by_what_its_file_says(
    network: Dalle, tokens: Tensor, tmp_path: Path
) -> None:
    save_network(tmp_path / "prior.safetensors", network, "dalle", SIZES)
    generator = load_generator(tmp_path / "prior.safetensors")
    seeds = torch.arange(6).view(3, 2)
    assert (generator.name, generator.text_length) == ("dalle", 5)
    assert torch.equal(generator.draw(tokens, seeds), sample(network, tokens, seeds))
    save_network(tmp_path / "other.safetensors", network, "dvae", SIZES)
    with pytest.raises(ValueError, match="'dvae' is no generator"):
        load_generator(tmp_path / "other.safetensors")


def test_given_codes_stay_and_condition_what_follows(network: Dalle, tokens: Tensor) -> None:
    given = torch.full((3, 3, 4), -1)
    given[:, :2] = torch.randint(0, 16, (3, 2, 4), generator=torch.Generator().manual_seed(3))
    seeds = torch.arange(6).view(3, 2)
    drawn = sample(network, tokens, seeds, Sampling(temperature=0), given=given)
    assert torch.equal(drawn[:, :, :2], given[:, None, :2].expand(-1, 2, -1, -1))
    codes = given.flatten(1).clamp(min=0)
    for place in range(8, 12):
        codes[:, place] = network(tokens, codes)[1][:, place].argmax(-1)
    assert torch.equal(drawn[:, 0], codes.view(3, 3, 4))


def test_giving_what_would_be_drawn_changes_nothing(network: Dalle, tokens: Tensor) -> None:
    seeds = torch.arange(3)[:, None]
    whole = sample(network, tokens, seeds)
    part = whole[:, 0].clone()
    part[:, 1:] = -1
    assert torch.equal(sample(network, tokens, seeds, given=part), whole)


def test_rows_are_shown_as_they_are_drawn(network: Dalle, tokens: Tensor) -> None:
    seen: list[Tensor] = []
    seeds = torch.arange(3)[:, None]
    drawn = sample(network, tokens, seeds, watch=lambda codes: seen.append(codes.clone()))
    assert len(seen) == 3
    for rows, codes in enumerate(seen, 1):
        assert torch.equal(codes[:, :, :rows], drawn[:, :, :rows])
        assert (codes[:, :, rows:] == -1).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 4, 3), r"shape \(3, 4, 3\), but the codes' is \(3, 3, 4\)"),
        (torch.full((3, 3, 4), 16), "codes from 16 to 16, but the network's are below 16"),
    ],
)
def test_given_codes_of_another_network_are_refused(
    network: Dalle, tokens: Tensor, given: Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        sample(network, tokens, torch.zeros(3, 1, dtype=torch.long), given=given)
