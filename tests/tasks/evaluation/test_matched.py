"""Ranks of own captions are those of all pictures against all captions, however many at a time."""

import numpy as np
import pytest

from tasks.candidates import Prompt, PromptCandidates
from tasks.evaluation import matched


class _Features:
    """A contrastive model of eight dimensions: texts by number, pictures by their pixels."""

    def texts(self, texts):
        rng = np.random.default_rng(1)
        return rng.normal(size=(len(texts), 8)).astype(np.float32)

    def images(self, pictures):
        return pictures.reshape(*pictures.shape[:2], -1)[..., :8].astype(np.float32)


@pytest.mark.parametrize("at_a_time", [1, 3, 64])
def test_ranks_are_those_of_a_plain_count(at_a_time, monkeypatch):
    monkeypatch.setattr(matched, "_PROMPTS", at_a_time)
    rng = np.random.default_rng(0)
    prompts = [
        PromptCandidates(
            Prompt(f"prompt {number:02d}"), np.zeros(4, np.int64),
            rng.integers(0, 255, (4, 3, 4, 4), dtype=np.uint8), np.zeros(4, np.float32),
        )
        for number in range(10)
    ]  # fmt: skip
    ranks, cosines = matched.own_ranks(_Features(), {"a": prompts[:7], "b": prompts[7:]})
    texts = _Features().texts(prompts)
    for group, some, first in (("a", prompts[:7], 0), ("b", prompts[7:], 7)):
        assert ranks[group].shape == cosines[group].shape == (len(some), 4)
        for row, one in enumerate(some):
            for column, picture in enumerate(one.pictures):
                found = texts @ picture.ravel()[:8].astype(np.float32)
                own = found[first + row]
                assert cosines[group][row, column] == pytest.approx(own, rel=1e-5)
                assert ranks[group][row, column] == (found >= own).sum()
