"""Figures of reconstructions are those of plain formulas on the same pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from infra.sources import resolve_sources
from infra.work import Work
from model_zoo.weights import build_recipe
from tasks.evaluation.features import FEATURES
from tasks.evaluation.reconstructions import Reconstructions, build_judge
from tasks.train_image_tokenizer import ImageTokenizerParams
from tests.tasks.evaluation.test_features import library_network
from tests.tasks.tiny_models import DVAE, add_shards

CPU = torch.device("cpu")


class Colours:
    """Features that are no network's: the mean of each colour in each quarter, [N, 12]."""

    def describe(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        quarters = pictures.reshape(len(pictures), 3, 2, 16, 2, 16).astype(np.float64)
        return {FEATURES: quarters.mean(axis=(3, 5)).reshape(len(pictures), -1)}


def _pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, size=(count, 3, 4, 4), dtype=np.uint8)
    return blocks.repeat(8, axis=2).repeat(8, axis=3)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    config = {**DVAE, "logit_gain": 20.0, "pixel_gain": 3.0}
    return build_recipe("dvae", config).network.eval()


def _frechet(first: np.ndarray, second: np.ndarray) -> float:
    """As its paper writes it, with a matrix root."""
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(apart + np.trace(covariances[0] + covariances[1] - 2 * root))


def test_they_are_those_of_plain_formulas(network: torch.nn.Module) -> None:
    pictures = _pictures(150)  # more than are in the network at a time
    judge = Reconstructions("held_out", lambda side: pictures, lambda: {"plain": Colours()}, CPU)
    found = judge(network, 7)
    assert not judge.notes
    with torch.no_grad():
        codes = network.codes(torch.from_numpy(pictures))  # type: ignore[operator]
        back = network.decode(codes).numpy()  # type: ignore[operator]
    errors = [np.mean((b.astype(float) - p) ** 2) for b, p in zip(back, pictures, strict=True)]
    times = np.array(list(Counter(codes.flatten().tolist()).values()))
    assert len(times) > 3
    perplexity = np.exp(stats.entropy(times))
    expected = {
        "held_out/pictures": 150,
        "held_out/psnr": np.mean([20 * np.log10(255 / np.sqrt(error)) for error in errors]),
        "held_out/codebook_use": len(times) / 16,
        "held_out/perplexity": perplexity,
        "held_out/perplexity_share": perplexity / 16,
        "held_out/codebook_collapsed": 0,
        "held_out/rfid/plain": _frechet(
            *(Colours().describe(p)[FEATURES] for p in (back, pictures))
        ),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_pictures_are_asked_for_once_at_the_networks_size(network: torch.nn.Module) -> None:
    asked = list[int]()

    def give(side: int) -> np.ndarray:
        asked.append(side)
        return _pictures(4)

    judge = Reconstructions("trained_on", give, dict, CPU)
    first, second = judge(network, 1), judge(network, 2)
    assert first == {**second, "trained_on/pictures": 4}
    assert asked == [32]


def test_with_few_pictures_there_is_no_distance_and_the_reason_is_noted_once(
    network: torch.nn.Module,
) -> None:
    pictures = _pictures(12)
    judge = Reconstructions("held_out", lambda side: pictures, lambda: {"plain": Colours()}, CPU)
    for step in (1, 2):
        assert not any("rfid" in name for name in judge(network, step))
    [note] = judge.notes
    assert note.startswith("rfid/plain is not measured: comparison: 12 pictures")
    assert "needs 13 or more" in note


def test_inception_is_asked_where_its_weights_are_declared(
    tmp_path: Path, network: torch.nn.Module
) -> None:
    torch.save(library_network(tmp_path).state_dict(), tmp_path / "weights.pth")
    training = {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}
    params = ImageTokenizerParams.model_validate(
        {"config": DVAE, "training": training, "picture_side": 32,
         "judged": {"pictures": 12, "inception": str(tmp_path / "weights.pth")}}
    )  # fmt: skip
    work = Work.local(tmp_path)
    sources = resolve_sources(params.sources(), work.environment)
    work = Work.local(tmp_path, sources=sources)
    assert params.judged is not None
    judge = build_judge(add_shards(work), 0.0, params.judged, work, None, None)
    assert judge(network, 1)["trained_on/pictures"] == 12
    [note] = judge.notes
    assert note.startswith("rfid/inception is not measured: comparison: 12 pictures on a side, and")
    assert "2048 features" in note
