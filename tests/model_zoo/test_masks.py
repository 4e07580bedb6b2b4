"""Attention masks equal what the paper says in words, place by place."""

import pytest
import torch

from model_zoo.masks import image_mask, layer_kinds, stream_mask


def _allowed(kind: str, looks: int, at: int, width: int, kernel: int) -> bool:
    """Whether raster position `looks` may attend to raster position `at`, said plainly."""
    if at > looks:
        return False
    if kind == "full":
        return True
    if kind == "row":
        return at in range(looks - width, looks + 1)
    if kind == "column":
        return at % width == looks % width
    reach = kernel // 2
    # Places of the window by row and column, a column beyond an edge being one of the next row.
    window = [looks + up * width + side
              for up in range(-reach, reach + 1) for side in range(-reach, reach + 1)]  # fmt: skip
    return at in window


@pytest.mark.parametrize("kind", ["row", "column", "convolutional", "full"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (3, 5), (6, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_image_masks_are_the_papers(kind: str, height: int, width: int, kernel: int) -> None:
    mask = image_mask(kind, height, width, kernel)
    codes = height * width
    wanted = [[_allowed(kind, q, k, width, kernel) for k in range(codes)] for q in range(codes)]
    assert mask.tolist() == wanted


def test_at_the_papers_size_a_row_layer_sees_33_codes_and_a_convolution_61() -> None:
    assert image_mask("row", 32, 32, 11)[-1].sum() == 33
    assert image_mask("column", 32, 32, 11)[-1].sum() == 32
    # 5 rows of 11 above, 5 to the left, itself: an 11 x 11 kernel's causal half.
    assert image_mask("convolutional", 32, 32, 11)[500].sum() == 5 * 11 + 5 + 1


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="conv_kernel: 4 has no centre"):
        image_mask("convolutional", 3, 3, 4)


def test_layers_follow_the_papers_pattern() -> None:
    assert layer_kinds(1) == ("convolutional",)
    assert layer_kinds(6) == ("row", "column", "row", "row", "row", "convolutional")
    kinds = layer_kinds(64)
    assert [i for i, kind in enumerate(kinds, 1) if kind == "column"] == list(range(2, 64, 4))
    assert kinds[-1] == "convolutional" and kinds.count("convolutional") == 1


def test_captions_are_causal_and_pictures_see_all_of_them() -> None:
    mask = stream_mask("column", caption=3, height=2, width=2, kernel=3)
    assert torch.equal(mask[:3, :3], torch.ones(3, 3, dtype=torch.bool).tril())
    assert not mask[:3, 3:].any() and mask[3:, :3].all()
    assert torch.equal(mask[3:, 3:], image_mask("column", 2, 2, 3))
