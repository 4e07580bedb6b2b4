"""Blocked attention is masked attention, forward and in every gradient, with less work."""

import pytest
import torch
import torch.nn.functional as F

from model_zoo import attention
from model_zoo.attention import MaskedAttention
from model_zoo.masks import Kind

KINDS: tuple[Kind, ...] = ("row", "column", "convolutional")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_LEAST_POSITIONS", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 7, 16, 64])
@pytest.mark.parametrize(
    ("height", "width", "kernel", "caption"),
    [(4, 6, 3, 5), (7, 3, 5, 1), (8, 8, 5, 9), (5, 5, 11, 3), (1, 9, 3, 2), (9, 1, 3, 2)],
)
def test_equals_masked_attention_in_values_and_gradients(
    kind: Kind, block: int, height: int, width: int, kernel: int, caption: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(attention, "_LEAST_BLOCK", block)
    attend = MaskedAttention(kind, caption, height, width, kernel)
    assert attend.blocks is not None
    torch.manual_seed(0)
    shape = (2, 3, caption + height * width - 1, 8)
    x = [torch.randn(shape, dtype=torch.double, requires_grad=True) for _ in range(3)]
    blocked = attend(*x)
    masked = F.scaled_dot_product_attention(*x, attn_mask=attend.mask)
    torch.testing.assert_close(blocked, masked, rtol=0, atol=1e-12)
    gradient = torch.randn(shape, dtype=torch.double)
    for found, wanted in zip(
        torch.autograd.grad(blocked, x, gradient), torch.autograd.grad(masked, x, gradient),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_paper_s_size_most_of_the_scores_are_not_computed(kind: Kind) -> None:
    attend = MaskedAttention(kind, 257, 32, 32, 11)
    assert attend.blocks is not None
    before, blocks, size, window = attend.blocks.allowed.shape
    assert 257 * 257 + 1024 * 257 + before * blocks * size * window < attend.mask.numel() / 2.2
