"""Files of candidates keep what they are given, and ranking moves all of it together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from tasks.candidates import CandidateSet, Prompt, by_group, read_candidates


def _set(prompts: int = 3, count: int = 4, seed: int = 0) -> CandidateSet:
    random = np.random.default_rng(seed)
    named = tuple(Prompt(f"prompt {i} ü", f"group {i % 2}", "because") for i in range(prompts))
    return CandidateSet(
        named,
        seeds=random.integers(0, 2**62, size=(prompts, count)),
        codes=random.integers(0, 9, size=(prompts, count, 2, 2), dtype=np.int32),
        pictures=random.integers(0, 256, size=(prompts, count, 3, 8, 8), dtype=np.uint8),
    )


def test_a_file_gives_back_what_was_written_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    written = _set()
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (first, second):
        written.write(path)
    found = read_candidates(first)
    assert found.prompts == written.prompts
    assert (found.scores, found.ranker) == (None, None)
    for name in ("seeds", "codes", "pictures"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
    assert first.read_bytes() == second.read_bytes()


def test_pictures_are_read_where_they_are_looked_at(tmp_path: Path) -> None:
    """Sixty megabytes of them take none until then."""
    pictures = np.zeros((50, 16, 3, 160, 160), np.uint8)
    pictures[7, 3] = 9
    prompts = tuple(Prompt(str(number)) for number in range(50))
    numbers = np.zeros((50, 16), np.int64)
    CandidateSet(prompts, numbers, numbers[..., None].astype(np.int32), pictures).write(
        tmp_path / "c.safetensors"
    )
    before = psutil.Process().memory_info().rss
    found = read_candidates(tmp_path / "c.safetensors")
    one = found.each()[7]
    assert psutil.Process().memory_info().rss - before < 10e6
    assert (one.pictures[3] == 9).all() and not one.pictures[2].any()


def test_ranking_moves_seeds_codes_and_pictures_together(tmp_path: Path) -> None:
    drawn = _set()
    scores = np.array([[0.1, 0.4, 0.2, 0.3], [1, 1, 2, 1], [4, 3, 2, 1]], dtype=np.float32)
    drawn.ranked(scores, "judge").write(tmp_path / "ranked.safetensors")
    ranked = read_candidates(tmp_path / "ranked.safetensors")
    assert ranked.ranker == "judge"
    assert ranked.scores is not None
    for row, order in enumerate([[1, 3, 2, 0], [2, 0, 1, 3], [0, 1, 2, 3]]):  # ties as they were
        np.testing.assert_array_equal(ranked.scores[row], scores[row][order])
        for name in ("seeds", "codes", "pictures"):
            expected = getattr(drawn, name)[row][order]
            np.testing.assert_array_equal(getattr(ranked, name)[row], expected)


def test_prompts_are_gathered_by_group_in_order() -> None:
    groups = by_group([_set(seed=1), _set(seed=2)])
    texts = {group: [one.prompt.text for one in prompts] for group, prompts in groups.items()}
    assert texts == {
        "group 0": ["prompt 0 ü", "prompt 2 ü", "prompt 0 ü", "prompt 2 ü"],
        "group 1": ["prompt 1 ü", "prompt 1 ü"],
    }
    np.testing.assert_array_equal(groups["group 0"][3].pictures, _set(seed=2).pictures[2])


def test_other_files_and_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_file({"codes": np.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x.safetensors: holds \['codes'\]"):
        read_candidates(tmp_path / "x.safetensors")
    good = _set()
    with pytest.raises(ValueError, match="seeds"):
        CandidateSet(good.prompts, good.seeds[:2], good.codes, good.pictures)
