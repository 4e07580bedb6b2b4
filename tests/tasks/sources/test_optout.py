"""What a page says of its content and what an image's answer says of it mean the same."""

from __future__ import annotations

import itertools

import pytest
from multidict import CIMultiDict

from infra.gateway.optout import opt_out
from tasks.sources.optout import forbids, signals_of

TRAINING = ("all", "bots", "tdm", "ai", "train-ai", "ai-train", "train-genai", "genai")
OTHER = ("search", "ai-use", "ai-input", "autobots", "tdm-search")


def on_a_page(name: str, value: str) -> bool:
    return forbids(signals_of([(name, value)]))


def at_the_gateway(name: str, value: str) -> bool:
    return opt_out(CIMultiDict({name: value}), "tapirtest") is not None


@pytest.mark.parametrize("name", ["content-usage", "content-signal"])
@pytest.mark.parametrize("no", ["n", "no", "?0", '"n"'])
def test_no_to_any_category_that_covers_training_forbids(name: str, no: str) -> None:
    """Whatever else is said, although some drafts let the more special category decide."""
    for category, other in itertools.permutations((*TRAINING, *OTHER), 2):
        for value in (f"{category}={no}, {other}=y", f"{other}=y,{category} = {no};exp=1"):
            expected = category in TRAINING
            assert on_a_page(name, value) is at_the_gateway(name, value) is expected, value


@pytest.mark.parametrize("value", ["", "train-ai", "train-ai=y", "train-ai=?1", "n", "=n"])
def test_what_says_no_to_nothing_does_not(value: str) -> None:
    assert not on_a_page("content-usage", value)
    assert not at_the_gateway("content-usage", value)
