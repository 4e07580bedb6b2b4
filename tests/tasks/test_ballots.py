"""Pairs are made of the best pictures of common captions, whose files are not trusted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infra.errors import PermanentError
from tasks.ballots import contents, make_pairs, pictures_in, pictures_of
from tasks.candidates import CandidateSet, Prompt


def drawn(path: Path, caption: str | None, score: str | None, level: int) -> None:
    said = PngInfo()
    for name, value in (("prompt", caption), ("score", score)):
        if value is not None:
            said.add_itxt(name, value)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (level, 0, 0)).save(path, pnginfo=said)


def level(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as image:
        assert image.info == {}  # nothing in it tells who drew it
        return int(np.asarray(image)[0, 0, 0])


def test_the_best_ranked_candidate_of_each_caption_is_taken(tmp_path: Path) -> None:
    pictures = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones(
        (1, 1, 3, 4, 4), np.uint8
    )
    whole = CandidateSet(
        (Prompt("a cat"), Prompt("a dog")), np.arange(6).reshape(2, 3),
        np.zeros((2, 3, 1, 1), np.int32), pictures,
    )  # fmt: skip
    whole.ranked(np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).write(tmp_path / "a.safetensors")
    found = pictures_of([tmp_path / "a.safetensors"])
    assert {caption: level(png) for caption, png in found.items()} == {"a cat": 1, "a dog": 3}


def test_a_folder_gives_the_best_score_and_passes_over_what_is_none_of_ours(
    tmp_path: Path,
) -> None:
    drawn(tmp_path / "cat" / "1.png", "a cat", "0.5", 1)
    drawn(tmp_path / "cat" / "2.png", "a cat", "0.9", 2)
    drawn(tmp_path / "dog" / "1.png", "a dog", None, 3)
    drawn(tmp_path / "dog" / "sheet.png", None, None, 4)
    drawn(tmp_path / "dog" / "odd.png", "a dog", "not a number", 5)
    drawn(tmp_path / "dog" / "long.png", "x" * 2000, "1", 6)
    (tmp_path / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    found = pictures_in(tmp_path)
    assert {caption: level(png) for caption, png in found.items()} == {"a cat": 2, "a dog": 3}
    with pytest.raises(PermanentError, match="no picture in it"):
        pictures_in(tmp_path / "nothing")


def test_pairs_are_of_common_captions_with_different_pictures() -> None:
    one = {"a": b"1", "b": b"2", "c": b"3"}
    (pair,) = make_pairs(one, {"d": b"4", "b": b"2", "a": b"5"})
    assert (pair.caption, pair.first, pair.second) == ("a", b"1", b"5")
    with pytest.raises(PermanentError, match="no caption in common: of 3 and 1"):
        make_pairs(one, {"d": b"4"})
    with pytest.raises(PermanentError, match="all 3 captions are the same"):
        make_pairs(one, dict(one))


def test_the_digest_of_pictures_does_not_depend_on_their_order() -> None:
    assert contents({"a": b"1", "b": b"2"}) == contents({"b": b"2", "a": b"1"})
    assert contents({"a": b"1"}) != contents({"a": b"2"})
