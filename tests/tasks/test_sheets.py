"""Sheets show every picture where it belongs, and say right or wrong by colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.sheets import Cell, Row, draw_curves, draw_sheet, enlarge

COLOURS = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]


def _cells(right: bool | None = None) -> list[Cell]:
    ones = np.ones((3, 32, 32), dtype=np.uint8)
    return [Cell(ones * np.array(c, np.uint8)[:, None, None], right, "0.5") for c in COLOURS]


def test_a_sheet_holds_the_pictures_in_order_and_marks_them() -> None:
    sheet = draw_sheet("title", [Row("a long prompt " * 9, _cells(True)), Row("b", _cells(False))])
    pixels = np.asarray(sheet)
    for colour in COLOURS:
        assert (pixels == colour).all(axis=-1).sum() == 2 * 64 * 64  # enlarged twice, in two rows
    columns = [np.argwhere((pixels == colour).all(axis=-1))[:, 1].min() for colour in COLOURS]
    assert columns == sorted(columns)
    green, red = ((pixels == mark).all(axis=-1) for mark in ((30, 150, 60), (205, 50, 50)))
    assert green.sum() == red.sum() == 3 * (70 * 70 - 64 * 64)
    assert np.argwhere(green)[:, 0].max() < np.argwhere(red)[:, 0].min()


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture"):
        draw_sheet("nothing", [Row("a", [])])


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (32, 64), (50, 50), (200, 200)])
def test_pictures_are_enlarged_by_whole_factors_only(side: int, expected: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(3, side, side), dtype=np.uint8)
    image = enlarge(picture, 64)
    assert image.size == (expected, expected)
    back = np.asarray(image)[:: expected // side, :: expected // side]
    np.testing.assert_array_equal(back.transpose(2, 0, 1), picture)


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    curves = {"held out": {1: 0.25, 2: 0.5, 4: 0.75}, "seen": {1: 0.5, 2: 0.6, 4: 0.9}}
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / name, "gain", curves, "n", "share")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (600, 400)
