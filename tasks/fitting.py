"""Refuse parts of a model that were not made for one another, before anything is drawn.

Sizes are read from the files' headers and compared by the names that configurations give them. A
network that has no such size is not asked for it.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from infra.errors import PermanentError
from model_zoo.weights import read_header
from schemas.base import Frozen
from tasks.network_config import config_model


def check_painting(prior: Path, image_tokenizer: Path, text_tokenizer: Tokenizer) -> None:
    """Refuse a prior whose codes or captions are other ones than the tokenizers'.

    Raises:
        PermanentError: naming the size and its value in either part.
    """
    draws, decodes = _config(prior), _config(image_tokenizer)
    grid = getattr(decodes, "grid", None)
    codes = getattr(decodes, "vocabulary", None)
    owner = f"image_tokenizer ({image_tokenizer.name})"
    for name, other, found in (
        ("image_vocabulary", "vocabulary", codes), ("grid_height", "grid", grid),
        ("grid_width", "grid", grid),
    ):  # fmt: skip
        _compare(f"prior ({prior.name})", name, getattr(draws, name, None), owner, other, found)
    _check_text(f"prior ({prior.name})", draws, text_tokenizer)


def check_judging(ranker: Path, text_tokenizer: Tokenizer) -> None:
    """Refuse a ranker that reads other tokens than the text tokenizer's.

    Raises:
        PermanentError: naming the size and its value in either part.
    """
    _check_text(f"ranker ({ranker.name})", _config(ranker), text_tokenizer)


def _check_text(reader: str, config: Frozen, text_tokenizer: Tokenizer) -> None:
    name, found = "text_vocabulary", text_tokenizer.get_vocab_size()
    _compare(reader, name, getattr(config, name, None), "text_tokenizer", "vocabulary", found)


def _compare(
    part: str, name: str, value: int | None, other: str, other_name: str, found: int | None
) -> None:
    if value is None or found is None or value == found:
        return
    raise PermanentError(
        f"{part} has {name} {value}, but {other} has {other_name} {found}: they were not made for"
        " one another; give parts that were trained together"
    )


def _config(path: Path) -> Frozen:
    """The configuration in a network's file, its defaults filled in."""
    name, config = read_header(path)
    return config_model(name).model_validate(config)
