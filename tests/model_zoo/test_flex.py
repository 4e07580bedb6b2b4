"""FlexAttention under the masks of the patterns, by its plain form, since there is no GPU here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from model_zoo import flex
from model_zoo.attention import MaskedAttention
from model_zoo.masks import Kind

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("kind", ["row", "column", "convolutional"])
def test_it_is_attention_under_the_mask(kind: Kind) -> None:
    layer = MaskedAttention(kind, 40, 12, 20, 5)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, len(layer.mask), 16, generator=draw) for _ in range(3))
    found = flex_attention(q, k, v, block_mask=flex.tiles_of(layer.mask))
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=layer.mask)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "most"), [("row", 40), ("column", 55)])
def test_tiles_that_the_mask_leaves_empty_are_passed_over(kind: Kind, most: int) -> None:
    """At the paper's sizes: a caption of 256 and a start, 32 x 32 codes."""
    layer = MaskedAttention(kind, 257, 32, 32, 11)
    side = -(-len(layer.mask) // 128)
    padded = F.pad(layer.mask, (0, side * 128 - len(layer.mask)) * 2)
    wanted = padded.view(side, 128, side, 128).any(3).any(1).sum()
    tiles = flex.tiles_of(layer.mask)
    looked_at = tiles.kv_num_blocks.sum()
    if tiles.full_kv_num_blocks is not None:
        looked_at = looked_at + tiles.full_kv_num_blocks.sum()
    assert looked_at == wanted == most


def test_a_kernel_that_is_wrong_or_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")

    def plain(q: Tensor, k: Tensor, v: Tensor, block_mask: BlockMask) -> Tensor:
        mask = torch.zeros(q.shape[2], q.shape[2], dtype=torch.bool)
        for row in range(len(mask)):
            for column in range(len(mask)):
                mask[row, column] = block_mask.mask_mod(0, 0, row, column)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def works(kernel: flex.Kernel) -> bool:
        monkeypatch.setattr(flex, "compiled", lambda: kernel)
        flex.works.cache_clear()
        try:
            return flex.works(device, 16, torch.float32)
        finally:
            flex.works.cache_clear()

    with torch.inference_mode():
        assert works(plain)
    with pytest.warns(UserWarning, match="FlexAttention is not used: it is off by"):
        assert not works(lambda *x, block_mask: F.scaled_dot_product_attention(*x, is_causal=True))
    with pytest.warns(UserWarning, match="FlexAttention is not used: no compiler"):
        assert not works(lambda *_, block_mask: (_ for _ in ()).throw(RuntimeError("no compiler")))
