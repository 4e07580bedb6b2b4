"""One text for a value, in every process, or a refusal."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import pytest

from schemas.base import Frozen, canonical, digest


class Colour(StrEnum):
    RED = "red"


class Size(Frozen):
    pixels: int
    ratio: float = 0.5


def test_order_of_keys_and_kind_of_number_do_not_matter() -> None:
    assert canonical({"b": 1.0, "a": [1, None]}) == canonical({"a": (1, None), "b": 1})


def test_models_enums_and_paths_have_plain_texts() -> None:
    value = {"colour": Colour.RED, "size": Size(pixels=3), "path": Path("a/b")}
    expected = '{"colour":"red","path":"a/b","size":{"pixels":3,"ratio":0.5}}'
    assert canonical(value) == expected


@pytest.mark.parametrize(
    "value", [{1, 2}, {"f": len}, object(), {1: "x"}, float("nan"), b"bytes", [float("inf")]]
)
def test_values_without_a_stable_text_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical(value)


def test_digests_do_not_depend_on_the_process() -> None:
    code = "from schemas.base import digest; print(digest({'x': ['ä', 0.1, True]}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed}, cwd=Path(__file__).parents[2],
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {digest({"x": ["ä", 0.1, True]})}
