"""The image tokenizer is trained on the pictures of shards, through the real training process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from infra.errors import PermanentError
from infra.shards import Sample, read_shard, write_shard
from infra.work import Event, Work
from model_zoo.training.config import RunConfig, TrainingConfig
from model_zoo.training.worker import train
from model_zoo.weights import load_network
from schemas.artifact import ImageShards
from tasks.evaluation.distances import fid
from tasks.evaluation.features import FEATURES, RankerFeatures
from tasks.evaluation.originals import reconstruct
from tasks.prepared import first_pictures, is_held_out, pixels, prepare
from tasks.train_image_tokenizer import ImageTokenizerParams, train_image_tokenizer
from tests.tasks.tiny_models import (
    DVAE,
    TEXT_LENGTH,
    add_ranker,
    add_shards,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip

TRAINING = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "engine": "torch", "log_every": 2}


def _params(**changes: object) -> ImageTokenizerParams:
    values = {"config": DVAE, "training": TRAINING, "picture_side": 40, **changes}
    return ImageTokenizerParams.model_validate(values)


def test_it_trains_and_logs_and_its_codes_become_pictures(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    images = add_shards(work)
    found = train_image_tokenizer(images=images, params=_params(), work=work)
    network = load_network(work.fetch(found.units[0]))
    assert found.units[0].name == "dvae.safetensors"
    pictures = network.decode(network.codes(torch.zeros(2, 3, 32, 32)))
    assert pictures.shape == (2, 3, 32, 32)
    logged = {entry["name"] for entry in work.metrics()}
    assert {"loss", "psnr", "codebook_use", "tokens_per_second"} <= logged


def test_a_batch_in_passes_trains_as_one_at_once(tmp_path: Path) -> None:
    """The gumbel noise is drawn in the same order, so only sums are rounded otherwise."""
    work = Work.local(tmp_path)
    images = add_shards(work)
    training = {**TRAINING, "steps": 2}
    params = _params(training={**training, "micro_batch": 2})
    made = train_image_tokenizer(images=images, params=params, work=work)
    run = RunConfig(
        network="dvae", config=DVAE, files=prepare(images, 40, work), checkpoints=tmp_path / "kept",
        training=TrainingConfig.model_validate(training), output=tmp_path / "whole.safetensors",
        progress=tmp_path / "progress.jsonl",
    )  # fmt: skip
    train(run)
    passes, whole = (load_network(path) for path in (work.fetch(made.units[0]), run.output))
    for found, expected in zip(passes.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_prepared_pictures_and_captions_stand_in_the_order_of_the_shard(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    work = Work.local(tmp_path)
    images, tokenizer = add_shards(work, pictures=5), add_text_tokenizer(work)
    files = prepare(images, 40, work, tokenizer, TEXT_LENGTH)
    for unit, file in zip(images.units, files, strict=True):
        found = load_file(file)
        for row, sample in enumerate(read_shard(work.fetch(unit))):
            np.testing.assert_array_equal(found["images"][row], pixels(sample, 40))
            tokens = [token for token in found["tokens"][row].tolist() if token >= 0]
            assert len(tokens) < TEXT_LENGTH
            assert max(tokens) < vocabulary_of(work, tokenizer)


def test_prepared_pictures_are_made_once(tmp_path: Path) -> None:
    first, images = Work.local(tmp_path), add_shards(Work.local(tmp_path))
    prepare(images, 40, first)
    second = Work.local(tmp_path)
    prepare(images, 40, second)
    assert (first.made, first.reused) == (2, 0)
    assert (second.made, second.reused) == (0, 2)


def test_no_pictures_is_an_error_that_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="not one picture"):
        train_image_tokenizer(images=ImageShards(), params=_params(), work=Work.local(tmp_path))


def test_a_wrong_size_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="resolution=33 does not divide"):
        _params(config={**DVAE, "resolution": 33})


HELD_OUT = 0.4


def _samples(images: ImageShards, work: Work) -> list[Sample]:
    return [sample for unit in images.units for sample in read_shard(work.fetch(unit))]


def _trained_on(images: ImageShards, work: Work) -> set[bytes]:
    from safetensors.numpy import load_file

    files = prepare(images, 32, work, held_out=HELD_OUT)
    return {row.tobytes() for file in files for row in load_file(file)["images"]}


def test_what_is_held_out_is_never_trained_on_however_pictures_lie_in_shards(
    tmp_path: Path,
) -> None:
    work = Work.local(tmp_path)
    images = add_shards(work)
    samples = _samples(images, work)
    one = tmp_path / "one.tar"
    write_shard(one, sorted(samples, key=lambda sample: sample.key))
    together = ImageShards(units=(work.add(one, one.name, len(samples)),))
    held = {pixels(s, 32).tobytes() for s in samples if is_held_out(s.key, HELD_OUT)}
    rest = {pixels(s, 32).tobytes() for s in samples if not is_held_out(s.key, HELD_OUT)}
    assert held
    assert not held & rest
    assert _trained_on(images, work) == _trained_on(together, work) == rest


def test_as_many_are_held_out_as_declared_and_more_hold_out_those_of_fewer() -> None:
    keys = [f"{number:032x}" for number in range(20_000)]
    few, many = ({key for key in keys if is_held_out(key, share)} for share in (0.02, 0.1))
    assert few < many
    assert len(few) / len(keys) == pytest.approx(0.02, abs=0.004)
    assert not any(is_held_out(key, 0.0) for key in keys)


def test_all_held_out_is_an_error(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    images = add_shards(work, shards=1, pictures=2)
    with pytest.raises(PermanentError, match="not one picture to train on"):
        prepare(images, 32, work, held_out=1 - 1e-9)


def test_reconstructions_of_what_is_held_out_are_judged_as_it_trains(tmp_path: Path) -> None:
    work = Work.local(tmp_path)
    images, texts = add_shards(work, pictures=100), add_text_tokenizer(work)
    ranker = add_ranker(work, vocabulary_of(work, texts))
    params = _params(held_out=HELD_OUT, judged={"pictures": 70})
    found = train_image_tokenizer(
        images=images, params=params, work=work, text_tokenizer=texts, ranker=ranker
    )
    metrics = {e["name"]: e["value"] for e in work.metrics() if e["step"] == TRAINING["steps"]}

    shards = [work.fetch(unit) for unit in images.units]
    held, _ = first_pictures(shards, 32, 70, lambda one: is_held_out(one.key, HELD_OUT))
    judged = reconstruct(work.fetch(found.units[0]), held, ())
    plain = judged.metrics()
    assert [e["value"] for e in work.metrics() if e["name"] == "held_out/pictures"] == [70]
    assert metrics["held_out/psnr"] == pytest.approx(plain["reconstruction/psnr"], abs=1e-4)
    assert metrics["held_out/codebook_use"] == pytest.approx(plain["codebook/use"])
    assert metrics["held_out/perplexity"] == pytest.approx(plain["codebook/perplexity"], rel=1e-3)
    features = RankerFeatures(*(work.fetch(one.units[0]) for one in (ranker, texts)))
    sides = [features.describe(one)[FEATURES] for one in (judged.pictures, held)]
    assert metrics["held_out/rfid/ranker"] == pytest.approx(fid(*sides)["fid"], rel=1e-3)


def test_neither_judging_nor_where_pictures_are_read_changes_what_is_trained(
    tmp_path: Path,
) -> None:
    digests, sizes = set[str](), dict[str, int]()
    ways = {"prepared": _params(), "shards": _params(judged={"pictures": 8}, pictures="shards")}
    for pictures, params in ways.items():
        work = Work.local(tmp_path / pictures)
        images = add_shards(work)
        found = train_image_tokenizer(images=images, params=params, work=work)
        digests.add(found.units[0].sha256)
        files = prepare(images, 40, work, pictures=params.pictures)
        sizes[pictures] = sum(path.stat().st_size for path in files if path.suffix != ".tar")
    assert len(digests) == 1
    assert sizes["shards"] < sizes["prepared"] / 20
    assert {"trained_on/psnr", "trained_on/perplexity"} <= {e["name"] for e in work.metrics()}
    assert not any("rfid" in entry["name"] for entry in work.metrics())  # on whose features?
    assert ways["shards"].identity() == ways["prepared"].identity()
    assert _params(held_out=0.1).identity() != ways["prepared"].identity()


def test_a_collapse_is_said_while_it_trains(tmp_path: Path) -> None:
    events = list[Event]()
    work = Work.local(tmp_path, listen=events.append)
    # At the paper's start all positions have nearly the same logits, and so few updates change
    # little: of 512 codes two or three are chosen.
    params = _params(config={**DVAE, "vocabulary": 512}, training={**TRAINING, "log_every": 1})
    train_image_tokenizer(images=add_shards(work), params=params, work=work)
    said = [e for e in events if e.kind == "message" and "has collapsed" in e.values["text"]]
    assert len(said) == 1
    curve = {e["step"]: e["value"] for e in work.metrics() if e["name"] == "perplexity"}
    flagged = [
        e["step"] for e in work.metrics() if e["name"] == "codebook_collapsed" and e["value"]
    ]
    assert said[0].values["text"].startswith(f"update {flagged[0]}:")
    assert f"is {curve[flagged[0]]:.1f}," in said[0].values["text"]
    at = events.index(said[0])
    assert any(e.kind == "progress" and e.values["unit"] == "updates" for e in events[at:])


@pytest.mark.parametrize(
    ("texts", "judged", "words"),
    [(False, {"pictures": 8}, "text_tokenizer: the ranker"), (True, None, "judged: the ranker")],
)
def test_a_ranker_that_cannot_judge_is_refused(
    tmp_path: Path, texts: bool, judged: object, words: str
) -> None:
    work = Work.local(tmp_path)
    tokenizer = add_text_tokenizer(work)
    with pytest.raises(PermanentError, match=words):
        train_image_tokenizer(
            images=add_shards(work), params=_params(judged=judged), work=work,
            text_tokenizer=tokenizer if texts else None,
            ranker=add_ranker(work, vocabulary_of(work, tokenizer)),
        )  # fmt: skip
