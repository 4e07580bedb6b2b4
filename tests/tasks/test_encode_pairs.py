"""Encoding: codes and tokens are those of the tokenizers, the same wherever a pair lies."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.code_pairs import CodePairs
from model_zoo.weights import load_network
from schemas.artifact import ImageShards
from tasks.encode_pairs import EncodeParams, encode_pairs, random_crop
from tasks.pictures import decode, to_square
from tasks.tokens import load_tokenizer
from tests.tasks.image_shards import add_samples, samples_of
from tests.tasks.tiny_models import add_image_tokenizer, add_shards, add_text_tokenizer

PARAMS = EncodeParams(text_length=24, crops=3, caption_variants=2, seed=5)


@pytest.fixture
def work(tmp_path):
    return Work.local(tmp_path)


@pytest.fixture
def models(work):
    return add_text_tokenizer(work), add_image_tokenizer(work)


def read(codes, work):
    """All rows by key: {key: {array: row}}."""
    found = {}
    for unit in codes.units:
        with safe_open(work.fetch(unit), framework="np") as file:
            keys = json.loads(file.metadata()["keys"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert keys == sorted(keys)
        assert unit.records == len(keys)
        for row, key in enumerate(keys):
            found[key] = {name: array[row] for name, array in arrays.items()}
    return found


def test_rows_are_what_the_tokenizers_give(work, models):
    images = add_shards(work)
    rows = read(encode_pairs(images, *models, PARAMS, work), work)

    tokenizer = load_tokenizer(work.fetch(models[0].units[0]))
    network = load_network(work.fetch(models[1].units[0]))
    samples = samples_of(images, work)
    assert set(rows) == set(samples)
    for key, sample in samples.items():
        ids = tokenizer.encode(sample.caption).ids[:24]
        assert rows[key]["tokens"].tolist() == ids + [-1] * (24 - len(ids))
        square = np.array(to_square(decode(sample.image), 32))
        codes = network.codes(torch.from_numpy(square).permute(2, 0, 1)[None].float())
        assert (rows[key]["codes"][0] == codes[0].numpy()).all()


def test_shapes_and_types_are_those_that_training_reads(work, models):
    codes = encode_pairs(add_shards(work), *models, PARAMS, work)

    (first, *_) = read(codes, work).values()
    assert {name: (a.dtype.name, a.shape) for name, a in first.items()} == {
        "tokens": ("int32", (24,)), "codes": ("int32", (3, 8, 8)),
        "token_variants": ("int32", (2, 24)),
    }  # fmt: skip
    assert all(unit.name.startswith("codes-") for unit in codes.units)
    pairs = CodePairs([work.fetch(unit) for unit in codes.units], seed=0)
    assert len(pairs) == codes.records == 24


def test_the_split_over_shards_makes_no_difference(work, models):
    images = add_shards(work)
    apart = add_samples(work, samples_of(images, work).values(), shards=5)

    first = read(encode_pairs(images, *models, PARAMS, work), work)
    second = read(encode_pairs(apart, *models, PARAMS, work), work)
    assert first.keys() == second.keys()
    for key, row in first.items():
        assert all((row[name] == second[key][name]).all() for name in row)


def test_another_seed_crops_otherwise_and_leaves_the_plain_ones(work, models):
    images = add_shards(work, shards=1)
    first = read(encode_pairs(images, *models, PARAMS, work), work)
    other = PARAMS.model_copy(update={"seed": 6})
    second = read(encode_pairs(images, *models, other, work), work)

    same = [(row["codes"] == second[key]["codes"]).all((1, 2)) for key, row in first.items()]
    assert np.all([one[0] for one in same])
    assert not np.all([one[1:] for one in same])
    assert all((row["tokens"] == second[key]["tokens"]).all() for key, row in first.items())


def test_variants_are_the_caption_split_otherwise(work, models):
    tokenizer = load_tokenizer(work.fetch(models[0].units[0]))
    params = PARAMS.model_copy(update={"caption_variants": 4, "dropout": 0.3, "text_length": 90})
    rows = read(encode_pairs(add_shards(work, shards=1), *models, params, work), work)

    for row in rows.values():
        assert len({_text(tokenizer, one) for one in (row["tokens"], *row["token_variants"])}) == 1
    assert any((row["token_variants"] != row["tokens"]).any() for row in rows.values())


def _text(tokenizer, tokens):
    return "".join(tokenizer.id_to_token(int(token)) for token in tokens if token >= 0)


def test_one_crop_and_no_variants_is_the_default(work, models):
    rows = read(encode_pairs(add_shards(work), *models, EncodeParams(text_length=24), work), work)

    (first, *_) = rows.values()
    assert set(first) == {"tokens", "codes"}
    assert first["codes"].shape == (1, 8, 8)


def test_finished_shards_are_not_made_again(work, models, tmp_path):
    images = add_shards(work)
    first = encode_pairs(images, *models, PARAMS, work)
    again = Work.local(tmp_path)

    assert encode_pairs(images, *models, PARAMS, again) == first
    assert (again.made, again.reused) == (0, len(images.units))


def test_no_pairs_stop_the_run(work, models):
    with pytest.raises(PermanentError, match="not one pair to encode"):
        encode_pairs(ImageShards(), *models, PARAMS, work)


def test_a_crop_stays_near_the_middle_and_is_never_flipped():
    ramp = np.linspace(0, 255, 96)[None].repeat(64, 0)
    picture = Image.fromarray(np.stack([ramp] * 3, -1).astype(np.uint8))

    for seed in range(60):
        crop = np.asarray(random_crop(picture, 32, np.random.default_rng(seed)), float)[..., 0]
        assert crop.shape == (32, 32)
        # Columns of the source under the crop's ends: the square of 64 begins at 12 to 20 of 32,
        # and at most an eighth of it is cut away.
        first, last = crop[0, 0] / 255 * 95, crop[0, -1] / 255 * 95
        assert 11 <= first <= 30
        assert 48 <= last - first <= 64


def test_a_picture_smaller_than_the_crop_is_enlarged():
    small = Image.new("RGB", (20, 24), (9, 8, 7))

    crop = random_crop(small, 32, np.random.default_rng(0))
    assert crop.size == (32, 32)
    assert crop.getcolors() == [(1024, (9, 8, 7))]
