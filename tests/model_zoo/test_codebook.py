"""A codebook that starts from clusters tells pictures apart before the first update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from infra.demo_web.drawing import random_pairs
from model_zoo.codebook import k_means, start_codebook
from model_zoo.crops import area_resize
from model_zoo.dvae import DVAE, DVAEConfig, psnr


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    drawn = [np.asarray(pair.picture) for pair in random_pairs(300, 3)]
    return area_resize(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous(), 32, 32)


def _config(**changes: object) -> DVAEConfig:
    small = {
        "resolution": 32, "patch": 4, "vocabulary": 128, "width": 96, "multipliers": (1,),
        "blocks": 1, "decoder_width": 96, "stem_kernel": 1, "centred": True,
    }  # fmt: skip
    return DVAEConfig.model_validate({**small, **changes})


def _network(config: DVAEConfig) -> DVAE:
    torch.manual_seed(0)
    return DVAE(config)


def _quality(network: DVAE, pictures: torch.Tensor) -> tuple[float, int]:
    codes = network.codes(pictures)
    return float(psnr(network.decode(codes), pictures)), len(codes.unique())


def test_clusters_reconstruct_before_any_training(pictures: torch.Tensor) -> None:
    network = _network(_config())
    before, _ = _quality(network, pictures)
    start_codebook(network, pictures, seed=0)
    after, used = _quality(network, pictures)
    assert before < 12
    assert after > 18
    assert used > 100


def test_a_decoder_that_is_no_table_still_gets_codes_that_differ(pictures: torch.Tensor) -> None:
    network = _network(_config(patch=1, multipliers=(1, 2, 2), width=16, decoder_width=16))
    start_codebook(network, pictures, seed=0)
    assert _quality(network, pictures)[1] > 60


def test_the_same_seed_gives_the_same_start(pictures: torch.Tensor) -> None:
    first, second = _network(_config()), _network(_config())
    start_codebook(first, pictures, seed=5)
    start_codebook(second, pictures, seed=5)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_clusters_are_as_good_as_a_librarys() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 4, generator=generator)
    rows = (centres.repeat(50, 1) + torch.randn(400, 4, generator=generator)).float()
    ours = torch.cdist(rows, k_means(rows, 8, generator)).min(dim=1).values.square().sum()
    theirs = KMeans(8, init="random", n_init=1, random_state=0).fit(rows.numpy()).inertia_
    assert float(ours) < 3 * theirs + 1e-6


def test_more_codes_than_patches_are_refused(pictures: torch.Tensor) -> None:
    network = _network(_config(vocabulary=1024))
    with pytest.raises(ValueError, match="vocabulary=1024: only 64 patches"):
        start_codebook(network, pictures[:1], seed=0)
