"""A whole plan: arithmetic, time, money and disk, worked out by hand for a small pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.costs.figures import Section
from tasks.costs.hardware import GPUS, Hardware
from tasks.costs.plan import Assumptions, Stages, plan_costs
from tasks.encode_pairs import EncodeParams
from tasks.import_image_tokenizer import ImportParams
from tasks.train_image_tokenizer import ImageTokenizerParams
from tasks.train_prior import PriorParams
from tasks.train_text_tokenizer import TextTokenizerParams

TRAINING = {"steps": 1000, "batch_size": 16, "learning_rate": 1e-3, "precision": "bf16"}
HARDWARE = Hardware("h100", machines=2, gpus=4, price=2.5)
GIVEN = Assumptions(
    HARDWARE, utilisation=0.5, rank=16, pairs=1000, picture_bytes=50_000, download=1e6
)


def _stages(**training: Any) -> Stages:
    return Stages(
        prior=PriorParams.model_validate({
            "config": {"width": 64, "heads": 4, "layers": 2, "attention": ["full", "full"]},
            "training": {**TRAINING, **training},
        }),
        codes=EncodeParams(text_length=4, crops=2, caption_variants=3),
        text_tokenizer=TextTokenizerParams(vocabulary=300),
        image_tokenizer=ImageTokenizerParams.model_validate({
            "picture_side": 24, "training": {**TRAINING, "precision": "fp32"},
            "config": {"resolution": 16, "vocabulary": 12, "width": 16, "multipliers": [1, 2]},
        }),
        pictures=("clean",),
        prepared={"image_tokenizer": 24},
    )  # fmt: skip


def _section(word: str, stages: Stages, given: Assumptions) -> Section:
    (found,) = (one for one in plan_costs(stages, given) if word in one.title)
    return found


def test_arithmetic_of_a_token_and_a_step() -> None:
    found = _section("Arithmetic", _stages(), GIVEN)
    tokens, width = 4 + 64, 64
    assert found.value("matrices, a token") == 6 * 12 * width**2 * 2
    looks = sum(range(1, tokens + 1)) / tokens  # with full attention, at all before and at itself
    assert found.value("attention, a token") == pytest.approx(12 * width * looks * 2)
    logits = (4 * (300 + 4) + 64 * 12) / tokens
    assert found.value("logits, a token") == pytest.approx(6 * width * logits)
    assert found.value("a step") == pytest.approx(found.value("a token") * tokens * 16)


def test_time_and_money_follow_from_the_rate() -> None:
    arithmetic, found = (_section(word, _stages(), GIVEN) for word in ("Arithmetic", "Time"))
    seconds = arithmetic.value("a step") / (8 * GPUS["h100"].flops * 0.5)
    assert found.value("a step") == pytest.approx(seconds)
    assert found.value("the run") == pytest.approx(1000 * seconds)
    assert found.value("the run, cost") == pytest.approx(1000 * seconds * 8 / 3600 * 2.5)
    sent = _section("as the paper shards", _stages(), GIVEN)
    bits = 8 * sent.value("between, a machine, compressed")
    assert found.value("network of a machine") == pytest.approx(bits / seconds)


def test_a_measured_rate_gives_the_utilisation() -> None:
    assumed = _section("Time", _stages(), GIVEN)
    rate = assumed.value("tokens of a GPU")
    measured = _section("Time", _stages(), replace(GIVEN, utilisation=1, tokens_per_second=rate))
    assert measured.value("utilisation") == pytest.approx(0.5)
    assert measured.value("the run") == pytest.approx(assumed.value("the run"))


def test_storage_and_download_of_the_pairs() -> None:
    stages = _stages(ema=0.9)
    found = _section("Storage", stages, GIVEN)
    assert found.value("pictures as fetched") == found.value("pictures after clean") == 5e7
    assert found.value("pictures for image_tokenizer") == 1000 * 3 * 24**2
    assert found.value("tokens and codes") == 1000 * 4 * (4 * 4 + 2 * 64)
    assert found.value("checkpoints") == 2 * 16 * stages.size().parameters
    assert found.value("download") == 8 * 5e7 / 1e6
    parts = [one.value for one in found.figures if one.name not in ("storage", "download")]
    assert found.value("storage") == sum(parts)


def test_what_a_gpu_cannot_do_is_said() -> None:
    v100s = replace(GIVEN, hardware=Hardware("v100_16gb"))
    assert "has no bf16" in _section("Time", _stages(), v100s).verdict
    assert "fp32 is declared" in _section("Time", _stages(precision="fp32"), v100s).verdict
    assert _section("Time", _stages(), GIVEN).verdict == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 12}, "batch: 12 samples do not divide among 2 x 4 GPUs; take a multiple of 8"),
        ({"rank": 10}, "rank: 10 does not divide among the 4 GPUs"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_costs(_stages(), replace(GIVEN, **changes))


def test_a_kind_of_gpu_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind 'h10'; did you mean 'h100'"):
        Hardware("h10")


def test_weights_that_are_given_cost_no_training() -> None:
    given = ImportParams(encoder="encoder.pkl", decoder="decoder.pkl", resolution=128)
    stages = replace(_stages(), image_tokenizer=given)
    found = plan_costs(stages, GIVEN)
    (tokenizer,) = (one for one in found if "image tokenizer" in one.title)
    assert tokenizer.figures == () and "given" in tokenizer.verdict
    assert _section("Parameters", stages, GIVEN).value("encoder of pictures") == 53_786_240
    assert stages.size().tokens == 4 + 16**2


def test_a_micro_batch_counts_in_what_the_paper_would_hold_too() -> None:
    whole, one = (_section("paper held", _stages(micro_batch=n), GIVEN) for n in (None, 1))
    assert whole.value("activations") == 2 * one.value("activations")
