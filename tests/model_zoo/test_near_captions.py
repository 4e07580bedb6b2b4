from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model_zoo.crops import CropConfig, PictureFiles
from model_zoo.near_captions import NearCaptions, NearPairs

A, RED, BLUE, CIRCLE, SQUARE, LEFT, RIGHT, OF, DOT = range(9)
COLOURS, SHAPES, SIDES = {RED, BLUE}, {CIRCLE, SQUARE}, {LEFT, RIGHT}


def _captions() -> np.ndarray:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        first, second = ([A, random.choice([1, 2]), random.choice([3, 4])] for _ in range(2))
        rows.append([*first, random.choice([LEFT, RIGHT]), OF, *second, DOT])
    return np.array(rows)


def test_words_between_the_same_neighbours_are_of_one_kind():
    kinds = NearCaptions(_captions()).kinds

    assert {token: set(others) for token, others in kinds.items()} == {
        RED: {BLUE}, BLUE: {RED}, CIRCLE: {SQUARE}, SQUARE: {CIRCLE}, LEFT: {RIGHT}, RIGHT: {LEFT},
    }  # fmt: skip


def test_the_measure_is_the_bhattacharyya_coefficient_of_contexts():
    captions = np.random.default_rng(0).integers(0, 5, (400, 5))
    captions[:, 4] = np.where(captions[:, 4] == 0, -1, captions[:, 4])
    uses: dict[int, Counter] = {token: Counter() for token in range(5)}
    for row in captions:
        words = [-1, *(int(w) for w in row if w >= 0), -1]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            uses[word][before, after] += 1
    wanted = {
        one: [
            other
            for other in range(5)
            if other != one
            and sum(
                (uses[one][c] / uses[one].total() * uses[other][c] / uses[other].total()) ** 0.5
                for c in uses[one]
            )
            >= 0.5
        ]
        for one in range(5)
    }

    assert NearCaptions(captions).kinds == {k: v for k, v in wanted.items() if v}


def test_a_near_caption_differs_by_one_word_or_by_two_that_changed_places():
    captions = _captions()
    near, random = NearCaptions(captions), np.random.default_rng(1)
    found = Counter()
    for row in captions[:200].tolist():
        other = near.draw(row, random)
        changed = [place for place in range(9) if row[place] != other[place]]
        for place in changed:
            kind = next(kind for kind in (COLOURS, SHAPES, SIDES) if row[place] in kind)
            assert other[place] in kind
        if len(changed) == 2:
            assert [row[place] for place in changed] == [other[place] for place in changed[::-1]]
        found[len(changed)] += 1

    assert set(found) == {1, 2}
    assert min(found.values()) > 40


def test_a_caption_without_such_words_stays_as_it_is():
    near = NearCaptions(_captions())

    assert near.draw([A, OF, DOT, -1], np.random.default_rng(0)) == [A, OF, DOT, -1]


@pytest.fixture
def file(tmp_path):
    captions = torch.from_numpy(_captions()[:40]).int()
    images = torch.randint(0, 256, (40, 3, 24, 24), dtype=torch.uint8)
    save_file({"images": images, "tokens": captions}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_near_captions_depend_on_seed_epoch_and_index_alone(file):
    data = NearPairs([file], seed=3, side=16, crops=CropConfig(), count=2)
    batch = data.batch(np.array([5, 11]), epoch=1)
    plain = PictureFiles([file], 3, 16, CropConfig(), ("tokens",)).batch(np.array([5, 11]), 1)

    assert len(data) == 40
    assert batch["near"].shape == (2, 2, 9) and batch["near"].dtype == torch.int32
    assert torch.equal(batch["images"], plain["images"])
    assert torch.equal(batch["tokens"], plain["tokens"])
    again = NearPairs([file], seed=3, side=16, crops=CropConfig(), count=2)
    assert torch.equal(again.batch(np.array([11]), 1)["near"][0], batch["near"][1])
    other = [again.batch(np.array([11]), epoch)["near"] for epoch in range(2, 8)]
    assert any(not torch.equal(one[0], batch["near"][1]) for one in other)
