"""Captions and prompts as tokens of a text tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from infra.errors import PermanentError
from tasks.text import one_line

PADDING = -1


class BadPrompt(PermanentError, ValueError):
    """A prompt that no model can draw; a stage does not try it again."""


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`."""
    return Tokenizer.from_file(str(path))


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str], length: int) -> np.ndarray:
    """Tokens of prompts, int64 [N, length], -1 after the last one.

    Raises:
        BadPrompt: for one that is empty, holds control characters, or is too long.
    """
    rows = np.full((len(prompts), length), PADDING, dtype=np.int64)
    for row, prompt in zip(rows, prompts, strict=True):
        check_text(prompt)
        ids = tokenizer.encode(one_line(prompt)).ids
        if len(ids) > length:
            raise BadPrompt(
                f"prompt {_shown(prompt)} is {len(ids)} tokens long, but the model reads"
                f" {length} at most; make it shorter"
            )
        row[: len(ids)] = ids
    return rows


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> np.ndarray:
    """Tokens of captions for training, int64 [N, length], -1 after the last; long ones are cut."""
    rows = np.full((len(captions), length), PADDING, dtype=np.int64)
    found = tokenizer.encode_batch([one_line(caption) for caption in captions])
    for row, encoding in zip(rows, found, strict=True):
        ids = encoding.ids[:length]
        row[: len(ids)] = ids
    return rows


def check_text(prompt: str) -> None:
    """Refuse what is no prompt at all.

    Raises:
        BadPrompt: for text that is empty or holds control characters or lone surrogates.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadPrompt(f"prompt {prompt!r} is empty; write what is to be drawn")
    wrong = [one for one in prompt if unicodedata.category(one) in ("Cc", "Cs")]
    if wrong:
        raise BadPrompt(f"prompt {_shown(prompt)} holds the control character {wrong[0]!r}")
    if not one_line(prompt):
        raise BadPrompt(f"prompt {_shown(prompt)} has no visible character")


def _shown(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
