"""What is declared of a comparison: which pictures, which radii, whose weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.candidates import CandidateSet, Prompt
from tasks.dedup.picture_hash import Likeness
from tasks.dedup_images import DedupParams
from tasks.evaluate import EvaluateParams
from tasks.evaluation.compared import choose_rows
from tasks.evaluation.comparison import Comparison, cached_weights


def _set(prompts: int, candidates: int) -> CandidateSet:
    return CandidateSet(
        tuple(Prompt(str(number)) for number in range(prompts)),
        np.zeros((prompts, candidates), np.int64),
        np.zeros((prompts, candidates, 1), np.int32),
        np.zeros((prompts, candidates, 3, 2, 2), np.uint8),
    )


def test_all_candidates_are_compared_unless_fewer_are_declared() -> None:
    sets = [_set(2, 3), _set(1, 3)]
    assert choose_rows(sets, Comparison()) == [
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], [(0, 0), (0, 1), (0, 2)],
    ]  # fmt: skip
    assert choose_rows(sets, Comparison(of_each=1)) == [[(0, 0), (1, 0)], [(0, 0)]]
    assert choose_rows(sets, Comparison(drawn=9)) == choose_rows(sets, Comparison())


def test_a_part_is_chosen_by_the_seed() -> None:
    sets = [_set(10, 8), _set(5, 8)]
    found = [choose_rows(sets, Comparison(drawn=30, seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert [sum(map(len, rows)) for rows in found] == [30, 30, 30]
    assert len({(i, *row) for i, rows in enumerate(found[0]) for row in rows}) == 30


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"radii": [-1]}, "radii go from 0 to 64"),
        ({"radii": [0, 65]}, "blur of 65.0 pixels"),
        ({"radii": [float("nan")]}, "radii go from 0 to 64"),
        ({"radii": [1, 1.0]}, "names one radius twice"),
        ({"radii": []}, "at least 1 item"),
        ({"overlap": 1.5}, "less than or equal to 1"),
        ({"overlap_bits": -1}, "greater than or equal to 0"),
        ({"overlap_bits": 65}, "less than or equal to 64"),
        ({"overlap_bits": 0.95}, "valid integer"),
        ({"overlap_bits": 4, "mean_difference": -1}, "greater than or equal to 0"),
        ({"mean_difference": 3}, "bound what overlap_bits finds; declare overlap_bits, too"),
        ({"overlap": 0.9, "most_difference": 40}, "declare overlap_bits, too, or leave them out"),
        ({"radius": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_declaration_is_refused(declared: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateParams.model_validate({"comparison": declared})


def test_bounds_of_overlap_are_those_that_are_declared() -> None:
    assert Comparison().overlap_bounds == ()
    assert Comparison(overlap_bits=0).overlap_bounds == ("overlap_bits",)
    assert Comparison(overlap_bits=16, overlap=0.9).overlap_bounds == ("overlap", "overlap_bits")


def test_thumbnails_are_compared_as_the_dedup_of_pictures_does() -> None:
    declared, dedup = Comparison(overlap_bits=16), DedupParams()
    assert declared.likeness == Likeness.model_validate(dedup.model_dump(exclude={"distance"}))
    assert Comparison(overlap_bits=4, most_difference=9).likeness == Likeness(most_difference=9)
    # What is on record of a comparison without a hash can be read again.
    assert Comparison.model_validate(Comparison().model_dump()) == Comparison()


def test_weights_are_a_source_if_they_are_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    declared = EvaluateParams.model_validate({"comparison": {"inception": "cached"}})
    assert declared.sources() == ()
    cached_weights().parent.mkdir()
    cached_weights().write_bytes(b"weights")
    assert declared.sources() == (str(cached_weights()),)
    named = EvaluateParams.model_validate({"comparison": {"inception": "home://weights.pth"}})
    assert named.sources() == ("home://weights.pth",)
    assert EvaluateParams().sources() == ()


def test_the_cache_is_where_the_library_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    monkeypatch.setattr(torch.hub, "_hub_dir", "/hub")
    assert str(cached_weights()) == f"/hub/checkpoints/{URL_INCEPTION_V3.rsplit('/', 1)[1]}"
