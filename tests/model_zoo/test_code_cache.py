"""The cache holds what the masks ask for and no more than it says, whatever the size."""

from __future__ import annotations

import pytest
import torch

from model_zoo.code_cache import Budget, CodeCache, Pattern
from model_zoo.masks import Kind, layer_kinds, stream_mask


def _pattern(kind: Kind, height: int = 6, width: int = 4, kernel: int = 3) -> Pattern:
    mask = stream_mask(kind, 5, height, width, kernel)
    return Pattern(mask[:-1, :-1], 5)


@pytest.mark.parametrize(
    ("kind", "room"), [("row", 10), ("column", 23), ("convolutional", 12), ("full", 23)]
)
def test_a_cache_gives_all_that_a_mask_allows_and_keeps_few(kind: Kind, room: int) -> None:
    pattern = _pattern(kind)
    allowed = stream_mask(kind, 5, 6, 4, 3)[5:-1, 5:-1]
    keys, values = torch.randn(2, 23, 3, 2, 7, generator=torch.Generator().manual_seed(0))
    cache = CodeCache(pattern, keys, 3, 2, 7)
    for place in range(23):
        found = cache.add(keys[place], values[place], place)
        for seen, whole in zip(found, (keys, values), strict=True):
            assert torch.equal(seen, whole[allowed[place]].permute(1, 2, 0, 3))
    assert cache.keys.shape == cache.values.shape == (3, 2, room, 7)


def test_a_picture_of_one_code_needs_no_cache() -> None:
    assert _pattern("row", 1, 1).room == 0


def _large(passes: int = 1) -> Budget:
    """12 billion parameters: 64 layers of width 3968, 256 tokens, 32 x 32 codes, fp32."""
    kinds = layer_kinds(64)
    patterns = {
        kind: Pattern(stream_mask(kind, 257, 32, 32, 11)[:-1, :-1], 257) for kind in set(kinds)
    }
    shapes = ((3 * 3968, 3968), (3968, 3968), (4 * 3968, 3968), (3968, 4 * 3968))
    matrices = [torch.empty(shape, device="meta") for shape in shapes] * 64
    return Budget.of([patterns[kind] for kind in kinds], 257, 3968, matrices, passes)


@pytest.mark.parametrize(("passes", "together"), [(1, 5), (2, 2)])
def test_at_12_billion_parameters_512_candidates_stay_within_4_gb(
    passes: int, together: int
) -> None:
    budget = _large(passes)
    # 47 row, 16 column layers and one convolutional: 66, 1,023 and 332 of 1,023 places.
    places = 47 * 66 + 16 * 1023 + 332
    assert budget.candidate == passes * 2 * places * 3968 * 4
    assert budget.caption == passes * 2 * 64 * 257 * 3968 * 4
    budget.check(4.0, passes == 2)
    assert not budget.copies_matrices(4.0)  # they are 48 GB
    batches = list(budget.batches(2, 512, 4.0, 512))
    sizes = [one.stop - one.start for _, one in batches]
    assert set(sizes) == {together}
    assert all(prompts.stop - prompts.start == 1 for prompts, _ in batches)
    assert budget.caption + together * budget.candidate <= 4e9
    assert budget.caption + (together + 1) * budget.candidate > 4e9


@pytest.mark.parametrize(
    ("prompts", "candidates", "bound"), [(3, 7, 100), (20, 16, 500), (5, 600, 1e9), (4, 1, 31)]
)
def test_batches_hold_each_candidate_once_and_stay_within_the_bound(
    prompts: int, candidates: int, bound: float
) -> None:
    budget = Budget(caption=10, candidate=20, matrices=5)
    times = torch.zeros(prompts, candidates, dtype=torch.int64)
    for some, each in budget.batches(prompts, candidates, bound / 1e9, 512):
        part = times[some, each]
        part += 1
        copies = 5 if budget.copies_matrices(bound / 1e9) else 0
        assert part.numel() <= 512
        assert part.shape[0] * 10 + part.numel() * 20 + copies <= bound
    assert (times == 1).all()
