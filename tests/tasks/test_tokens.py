"""Prompts become tokens, or are refused with the reason."""

from __future__ import annotations

import pickle

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from infra.errors import PermanentError
from tasks.tokens import encode_prompts


@pytest.fixture
def tokenizer() -> Tokenizer:
    words = {"[?]": 0, "a": 1, "red": 2, "circle": 3}
    found = Tokenizer(WordLevel(words, unk_token="[?]"))
    found.pre_tokenizer = Whitespace()
    return found


def test_tokens_stand_first_and_padding_after_them(tokenizer: Tokenizer) -> None:
    rows = encode_prompts(tokenizer, ["a red circle", "  red   "], 4)
    assert rows.tolist() == [[1, 2, 3, -1], [2, -1, -1, -1]]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "'' is empty"),
        (" \u3000 ", "is empty"),
        ("\u200b", "no visible character"),
        ("a\x00b", r"control character '\\x00'"),
        ("a\nb", r"control character '\\n'"),
        ("\ud800", "control character"),
        ("a red circle a red", "5 tokens long, but the model reads 4 at most"),
        ("red " * 500, r"\.\.\.' is 500 tokens long"),
    ],
)
def test_a_bad_prompt_is_refused_with_the_reason(
    tokenizer: Tokenizer, prompt: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        encode_prompts(tokenizer, ["a", prompt], 4)


def test_a_bad_prompt_is_a_wrong_value_and_not_tried_again(tokenizer: Tokenizer) -> None:
    with pytest.raises(PermanentError) as caught:
        encode_prompts(tokenizer, [""], 4)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from Dask workers
