"""Part of a picture stays as it is and the rest is drawn, whatever kind of picture it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infra.work import Work
from tasks.given import Given, parse_box
from tasks.painting import Painter, candidate_seeds
from tests.tasks.tiny_models import (
    add_image_tokenizer,
    add_prior,
    add_text_tokenizer,
    vocabulary_of,
)  # fmt: skip


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    work = Work.local(tmp_path_factory.mktemp("given"))
    text = add_text_tokenizer(work)
    parts = (add_prior(work, vocabulary_of(work, text)), add_image_tokenizer(work), text)
    return Painter(*(work.fetch(part.units[0]) for part in parts))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "picture.png"
    Image.fromarray(random.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


def test_what_is_given_stays_and_the_rest_is_drawn(painter: Painter, image: Path) -> None:
    codes = Given(image, rows=3).codes(painter.image_tokenizer)
    assert (codes[:3] >= 0).all()
    assert (codes[3:] == -1).all()
    seeds = candidate_seeds(0, ["a red circle", "a blue square"], 4)
    drawn, _ = painter.paint(["a red circle", "a blue square"], seeds, given=codes)
    assert (drawn[:, :, :3] == codes[:3]).all()
    assert len({tuple(one.flatten()) for one in drawn[:, :, 3:].reshape(8, -1)}) == 8


def test_a_box_is_kept_where_it_is(painter: Painter, image: Path) -> None:
    whole = Given(image, box=(0, 0, 8, 7)).codes(painter.image_tokenizer)
    part = Given(image, box=(2, 1, 5, 4)).codes(painter.image_tokenizer)
    assert (part[2:5, 1:4] == whole[2:5, 1:4]).all()
    assert (part >= 0).sum() == 9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_any_mode_of_picture_will_do(painter: Painter, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    Image.new(mode, (5, 300)).save(path)
    assert Given(path, rows=1).codes(painter.image_tokenizer).shape == (8, 8)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"rows": 8}, "rows: 8 of 8 rows of codes; keep 1 to 7"),
        ({"rows": 0}, "rows: 0 of 8"),
        ({"box": (0, 0, 9, 4)}, "0,0,9,4 is no part of 8x8 codes"),
        ({"box": (0, 0, 8, 8)}, "not all of it"),
        ({}, "either --rows or --box"),
        ({"rows": 1, "box": (0, 0, 1, 1)}, "either --rows or --box"),
    ],
)
def test_parts_that_make_no_sense_are_refused(
    painter: Painter, image: Path, kept: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Given(image, **kept).codes(painter.image_tokenizer)  # type: ignore[arg-type]


def test_a_file_that_is_no_picture_is_refused(painter: Painter, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_text("<html>")
    with pytest.raises(ValueError, match="cannot identify image file"):
        Given(path, rows=1).codes(painter.image_tokenizer)


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,-4"])
def test_boxes_are_four_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="TOP,LEFT,BOTTOM,RIGHT"):
        parse_box(text)
    assert parse_box("0,1, 2,3") == (0, 1, 2, 3)
