"""The text tokenizer: the same from the same captions, and a token for every text."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from infra.demo_web.drawing import random_pairs
from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import ImageShards
from tasks.bpe_dropout import DropoutEncoder
from tasks.tokens import load_tokenizer
from tasks.train_text_tokenizer import TextTokenizerParams, train_bpe, train_text_tokenizer
from tests.tasks.image_shards import add_samples, make_sample

CAPTIONS = [pair.caption for pair in random_pairs(300, seed=4)]
PARAMS = TextTokenizerParams(vocabulary=400)


def run(folder, captions, shards):
    work = Work.local(folder)
    samples = [make_sample(f"{n}", b"image", caption) for n, caption in enumerate(captions)]
    made = train_text_tokenizer(add_samples(work, samples, shards), PARAMS, work)
    return made, load_tokenizer(work.fetch(made.units[0]))


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(iter(CAPTIONS), 400)


def test_the_split_over_shards_and_the_order_make_no_difference(tmp_path):
    shuffled = random.Random(1).sample(CAPTIONS, len(CAPTIONS))

    made = [run(tmp_path / "a", CAPTIONS, 1)[0], run(tmp_path / "b", shuffled, 5)[0]]
    assert made[0] == made[1]
    assert made[0].units[0].name == "tokenizer.json"


def test_another_process_with_another_hash_seed_makes_the_same(tokenizer):
    code = (
        "import json, sys; from tasks.train_text_tokenizer import train_bpe;"
        "print(train_bpe(iter(json.load(sys.stdin)), 400).to_str())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "RAYON_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(CAPTIONS), env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert output.stdout.strip() == tokenizer.to_str()


def test_words_of_the_captions_are_tokens_of_their_own(tokenizer):
    assert tokenizer.encode("a large red circle on white").tokens == [
        "Ġa", "Ġlarge", "Ġred", "Ġcircle", "Ġon", "Ġwhite",
    ]  # fmt: skip


def test_case_and_composition_make_no_difference(tokenizer):
    assert tokenizer.encode("A RED Circle").ids == tokenizer.encode("a red circle").ids
    assert tokenizer.encode("cafe\u0301").ids == tokenizer.encode("café").ids


def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer):
    assert tokenizer.encode("red").ids == tokenizer.encode("circle red").ids[1:]


def test_every_text_has_tokens_and_comes_back(tokenizer):
    for text in ("日本語", "emoji 😀", "zqxj", "\x00"):
        ids = tokenizer.encode(text).ids
        assert max(ids) < 400
        assert tokenizer.decode(ids).removeprefix(" ") == text


def test_the_vocabulary_has_the_declared_size(tmp_path):
    _, tokenizer = run(tmp_path, ["ab " * 5 + f"{n:05d}{n * 7919:06d}" for n in range(400)], 2)

    assert tokenizer.get_vocab_size() == 400


def test_no_captions_stop_the_run(tmp_path):
    with pytest.raises(PermanentError, match="not one caption"):
        train_text_tokenizer(ImageShards(), PARAMS, Work.local(tmp_path))


def test_without_dropout_the_tokens_are_the_librarys(tokenizer):
    encoder, rng = DropoutEncoder(tokenizer, 0.0), np.random.default_rng(0)

    for caption in [*CAPTIONS[:80], "ünknown wörds!", "zzz 12345", ""]:
        assert encoder.encode(caption, rng) == tokenizer.encode(caption).ids


def test_dropout_splits_the_same_text_otherwise_and_by_its_seed(tokenizer):
    encoder = DropoutEncoder(tokenizer, 0.1)
    draws = [encoder.encode(CAPTIONS[0], np.random.default_rng(seed)) for seed in range(40)]

    assert draws[3] == encoder.encode(CAPTIONS[0], np.random.default_rng(3))
    assert len({tuple(draw) for draw in draws}) > 5
    assert {tokenizer.decode(draw) for draw in draws} == {tokenizer.decode(draws[0])}


def test_full_dropout_leaves_bytes(tokenizer):
    ids = DropoutEncoder(tokenizer, 1.0).encode("red", np.random.default_rng(0))

    assert [tokenizer.id_to_token(one) for one in ids] == ["Ġ", "r", "e", "d"]


def test_each_merge_is_left_out_as_often_as_declared():
    """Two merges make "Ġab", each tried once: it stays whole if neither is dropped."""
    encoder = DropoutEncoder(train_bpe(iter(["ab"] * 9), 258), 0.3)
    rng = np.random.default_rng(5)
    whole = [len(encoder.encode("ab", rng)) == 1 for _ in range(4000)]

    assert np.mean(whole) == pytest.approx(0.7 * 0.7, abs=0.03)


@pytest.mark.parametrize("dropout", [-0.1, 1.1])
def test_what_is_no_probability_is_refused(tokenizer, dropout):
    with pytest.raises(ValueError, match="is no probability"):
        DropoutEncoder(tokenizer, dropout)
