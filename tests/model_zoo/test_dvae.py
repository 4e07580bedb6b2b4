import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy import integrate, special, stats

from model_zoo.dvae import (
    DVAE,
    DVAEConfig,
    anneal,
    build_decoder,
    build_encoder,
    build_recipe,
    codebook_metrics,
    dvae_loss,
    gumbel_softmax,
    logit_laplace_nll,
    map_pixels,
    psnr,
    uniform_kl,
    unmap_pixels,
)
from model_zoo.weights import load_network, save_network

SMALL = {
    "resolution": 16, "vocabulary": 24, "width": 8, "multipliers": [1, 2, 2], "blocks": 1,
    "decoder_width": 12, "kl_warmup": 10, "temperature_steps": 20,
}  # fmt: skip


def _small(**changes) -> DVAEConfig:
    return DVAEConfig(**{**SMALL, **changes})


def _images(count=4, height=16, width=16, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)


def _count(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_released_size_has_the_released_number_of_parameters():
    with torch.device("meta"):
        encoder, decoder = build_encoder(DVAEConfig()), build_decoder(DVAEConfig())

    assert _count(encoder) == 53_786_240
    assert _count(decoder) == 43_829_766


def test_four_groups_make_one_code_of_eight_by_eight_pixels():
    network = DVAE(_small(multipliers=[1, 1, 2, 2]))
    logits = network.logits(map_pixels(_images(), 0.1))

    assert logits.shape == (4, 24, 2, 2)
    assert network.decoder(logits).shape == (4, 6, 16, 16)


def test_the_paper_s_numbers_follow_from_the_released_size():
    config = DVAEConfig()

    assert config.branch_scale == 1 / 64
    assert config.kl_scale == 192
    assert config.grid == 32


def test_layers_follow_the_released_code():
    encoder = build_encoder(DVAEConfig(width=16, vocabulary=32))
    kernels = [m.kernel_size[0] for m in encoder.group_2[0].branch if hasattr(m, "kernel_size")]
    widths = [m.out_channels for m in encoder.group_2[0].branch if hasattr(m, "kernel_size")]
    decoder = build_decoder(DVAEConfig(width=16, vocabulary=32))
    back = [m.kernel_size[0] for m in decoder.group_1[0].branch if hasattr(m, "kernel_size")]

    assert encoder.input.kernel_size == (7, 7)
    assert (kernels, widths) == ([3, 3, 3, 1], [8, 8, 8, 32])
    assert back == [1, 3, 3, 3]
    assert encoder.output.kernel_size == decoder.input.kernel_size == (1, 1)


def test_weights_are_drawn_with_the_declared_spread():
    torch.manual_seed(0)
    network = DVAE(_small(width=64, gain=1.5, pixel_gain=2.0, logit_gain=3.0, centred=True))
    inner = network.encoder.group_2[0].branch[3]

    assert inner.weight.std().item() == pytest.approx(1.5 / math.sqrt(32 * 9), rel=0.03)
    assert network.encoder.input.weight.std().item() == pytest.approx(3 / math.sqrt(147), rel=0.03)
    assert network.encoder.output.weight.std().item() == pytest.approx(4.5 / 128**0.5, rel=0.06)
    assert not inner.bias.any()
    grey = torch.full((1, 3, 9, 9), 0.5)
    assert network.encoder.input(grey)[:, :, 4, 4].abs().max() < 1e-5


def test_the_likelihood_is_that_of_a_logit_laplace_variable():
    generator = np.random.default_rng(0)
    values = generator.uniform(0.1, 0.9, 200)
    mu, log_b = generator.normal(size=200), generator.normal(size=200)
    # x = sigmoid(y) of a Laplace variable y: its density is that of y over dx/dy = x(1 − x).
    wanted = -stats.laplace.logpdf(special.logit(values), mu, np.exp(log_b))
    wanted += np.log(values * (1 - values))

    found = logit_laplace_nll(*(torch.from_numpy(x) for x in (values, mu, log_b)))

    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_the_likelihood_integrates_to_one():
    def density(x: float) -> float:
        args = (torch.tensor(v, dtype=torch.float64) for v in (x, 0.4, -0.7))
        return float(torch.exp(-logit_laplace_nll(*args)))

    mass, _ = integrate.quad(density, 0, 1, points=[special.expit(0.4)])

    assert mass == pytest.approx(1, abs=1e-6)


def test_pixels_come_back_from_the_likelihood_s_scale():
    pixels = torch.arange(256, dtype=torch.uint8)
    mapped = map_pixels(pixels, 0.1)

    assert mapped[0].item() == pytest.approx(0.1)
    assert mapped[255].item() == pytest.approx(0.9)
    assert torch.equal(unmap_pixels(torch.logit(mapped), 0.1), pixels)


def test_schedules_are_cosines_that_hold_their_end():
    assert anneal(0, 1.0, 1 / 16, 150_000) == 1.0
    assert anneal(75_000, 1.0, 1 / 16, 150_000) == pytest.approx((1 + 1 / 16) / 2)
    assert anneal(37_500, 1.0, 0.0, 150_000) == pytest.approx(math.cos(math.pi / 8) ** 2)
    assert anneal(150_000, 1.0, 1 / 16, 150_000) == anneal(10**6, 1.0, 1 / 16, 150_000) == 1 / 16
    assert anneal(0, 0.0, 6.6, 0) == 6.6


def test_relaxed_codes_follow_the_logits_at_a_low_temperature():
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    logits = probabilities.log().view(1, 3, 1, 1).expand(1, 3, 200, 200)

    codes = gumbel_softmax(logits, 0.01, torch.Generator().manual_seed(0))

    torch.testing.assert_close(codes.sum(1), torch.ones(1, 200, 200))
    torch.testing.assert_close(codes.mean((0, 2, 3)), probabilities, atol=0.01, rtol=0)
    assert codes.amax(1).mean() > 0.98


def test_the_kl_is_that_of_plain_categoricals_against_uniform():
    logits = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    rows = logits.permute(0, 2, 3, 1).reshape(-1, 7).double().softmax(1).numpy()
    wanted = np.mean([stats.entropy(row, np.full(7, 1 / 7)) for row in rows])

    codes_last = logits.movedim(1, -1)
    found = uniform_kl(codes_last.softmax(-1), codes_last.log_softmax(-1)).mean()

    assert found.item() == pytest.approx(wanted, rel=1e-5)
    even = torch.full((1, 7), 1 / 7)
    assert uniform_kl(even, even.log()).abs().item() < 1e-6


def test_the_loss_is_the_bound_over_pixels_and_colours():
    config = _small(temperature_start=0.5, temperature_end=0.5, balance_weight=0.25)
    torch.manual_seed(1)
    network, images = DVAE(config), _images()

    loss, metrics = dvae_loss(network, images, 5, torch.Generator().manual_seed(3))

    targets = map_pixels(images, 0.1)
    logits = network.encoder(targets)
    maps = network.decoder(gumbel_softmax(logits, 0.5, torch.Generator().manual_seed(3)))
    likelihood = logit_laplace_nll(targets, maps[:, :3], maps[:, 3:]).sum()
    q = logits.softmax(1)
    kl = (q * (q.log() + math.log(24))).sum()
    mean = q.mean((0, 2, 3))
    balance = (mean * (mean.log() + math.log(24))).sum()
    # The bound of a picture over its 16·16·3 values; beta has come half its way at update 5.
    bound = (likelihood + 3.3 * kl) / (4 * 16 * 16 * 3)
    assert loss.item() == pytest.approx((bound + 0.25 * balance).item(), rel=1e-5)
    assert metrics["kl"].item() == pytest.approx(kl.item() / (4 * 16), rel=1e-4)
    assert metrics["kl_weight"].item() == pytest.approx(3.3)


def test_a_floor_keeps_the_likelihood_s_scale_from_running_to_zero():
    torch.manual_seed(0)
    images = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    floored, free = DVAE(_small(log_scale_floor=-2.0)), DVAE(_small())
    for network in (floored, free):
        with torch.no_grad():
            network.decoder.output.weight.zero_()
            network.decoder.output.bias[3:] = -30.0

    least, _ = dvae_loss(floored, images, 0, torch.Generator())
    lower, _ = dvae_loss(free, images, 0, torch.Generator())

    # Pixel 128 lies within 0.007 of mu = 0 in logits: 0.05 of the floor's scale.
    assert least.item() == pytest.approx(-2 + math.log(2 / 4), abs=0.06)
    assert lower.item() > 1e6


def test_codes_are_the_likeliest_and_decoding_them_is_decoding_one_hot_maps():
    torch.manual_seed(0)
    network = DVAE(_small())
    images = _images(height=24, width=40)

    codes = network.codes(images)
    pictures = network.decode(codes)

    assert codes.shape == (4, 6, 10)
    assert torch.equal(codes, network.encoder(map_pixels(images, 0.1)).argmax(1))
    one_hot = torch.nn.functional.one_hot(codes, 24).permute(0, 3, 1, 2).float()
    wanted = unmap_pixels(network.decoder(one_hot)[:, :3], 0.1)
    assert pictures.shape == images.shape and pictures.dtype == torch.uint8
    assert (pictures.int() - wanted.int()).abs().max() <= 1


def test_a_picture_without_a_whole_number_of_codes_is_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        DVAE(_small()).codes(_images(height=18))


def test_the_layers_beside_the_codes_stay_in_full_precision():
    network = DVAE(_small())

    with torch.autocast("cpu", torch.bfloat16):
        logits = network.logits(map_pixels(_images(), 0.1))
        hidden = network.decoder.input(logits)

    assert logits.dtype == hidden.dtype == torch.float32


def test_collapse_is_noticed():
    even, one = torch.full((64,), 5.0), torch.zeros(64)
    one[3] = 320.0

    used, collapsed = codebook_metrics(even), codebook_metrics(one)

    assert used["perplexity"].item() == pytest.approx(64, rel=1e-5)
    assert used["codebook_use"].item() == 1
    assert used["perplexity_share"].item() == pytest.approx(1, rel=1e-5)
    assert collapsed["perplexity"].item() == pytest.approx(1, rel=1e-5)
    assert collapsed["codebook_use"].item() == pytest.approx(1 / 64)
    assert (used["codebook_collapsed"], collapsed["codebook_collapsed"]) == (0, 1)
    assert codebook_metrics(one, collapse_below=1 / 65)["codebook_collapsed"] == 0


def test_the_loss_says_when_the_codebook_has_collapsed():
    torch.manual_seed(0)
    network = DVAE(_small(collapse_below=0.1))
    with torch.no_grad():
        network.encoder.output.bias[5] = 100.0

    _, metrics = dvae_loss(network, _images(), 0, torch.Generator())

    assert metrics["codebook_collapsed"].item() == 1
    assert metrics["perplexity"].item() == pytest.approx(1)


def test_psnr_is_the_peak_over_the_mean_squared_error():
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)

    assert psnr(images + 10, images).item() == pytest.approx(10 * math.log10(255**2 / 100))


def test_training_learns_and_keeps_the_codebook_in_use(tmp_path):
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 240]])
    rows = torch.randint(0, 4, (64, 4, 4), generator=generator)
    images = colours[rows].permute(0, 3, 1, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    save_file({"images": images.to(torch.uint8).contiguous()}, tmp_path / "a.safetensors")
    torch.manual_seed(0)
    recipe = build_recipe(
        {
            **SMALL, "width": 16, "decoder_width": 32, "temperature_steps": 90, "kl_weight": 0.0,
            "balance_weight": 0.1, "log_scale_floor": -2.0, "residual_scale": 0.5, "centred": True,
            "pixel_gain": 3.0, "logit_gain": 2.0, "code_gain": 5.0,
            "crops": {"smallest": 1, "largest": 1},
        }
    )  # fmt: skip
    data = recipe.dataset([tmp_path / "a.safetensors"], seed=0)
    optimiser = torch.optim.AdamW(recipe.network.parameters(), 1e-2)
    for step in range(120):
        batch = data.batch(np.arange(64).reshape(2, 32)[step % 2], epoch=step // 2)
        loss, metrics = recipe.loss(batch, step, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(recipe.network.parameters(), 10)
        optimiser.step()

    images = data.batch(np.arange(64), 0)["images"]
    rebuilt = recipe.network.decode(recipe.network.codes(images))

    assert psnr(rebuilt, images).item() > 18
    assert metrics["codebook_collapsed"].item() == 0
    assert not any(value.requires_grad for value in metrics.values())


def test_a_saved_network_gives_the_same_codes_and_pictures(tmp_path):
    torch.manual_seed(0)
    network = build_recipe(SMALL).network
    save_network(tmp_path / "dvae.safetensors", network, "dvae", SMALL)

    loaded = load_network(tmp_path / "dvae.safetensors")

    codes = network.codes(_images())
    assert torch.equal(loaded.codes(_images()), codes)
    assert torch.equal(loaded.decode(codes), network.decode(codes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 18}, "resolution=18 does not divide by the factor 4"),
        ({"width": 6}, "width=6 does not divide by bottleneck=4"),
        ({"multipliers": []}, "multipliers"),
        ({"encoder_kernels": [3, 2]}, "encoder_kernels"),
        ({"pixel_margin": 0.5}, "pixel_margin"),
        ({"vocabulry": 5}, "vocabulry"),
    ],
)
def test_a_configuration_that_makes_no_network_is_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        _small(**changes)
