"""A collapse of the codebook is said when it happens, and not again and again."""

from __future__ import annotations

import pytest

from tasks.codebook_alarm import CollapseAlarm


def _metrics(collapsed: float, prefix: str = "") -> dict[str, float]:
    perplexity = 2.5 if collapsed else 200.0
    return {
        f"{prefix}codebook_collapsed": collapsed, f"{prefix}perplexity": perplexity,
        f"{prefix}perplexity_share": perplexity / 512, "loss": 1.0,
    }  # fmt: skip


def _said(*flags: float, prefix: str = "", known: tuple[float, ...] = ()) -> list[str]:
    said = list[str]()
    entries = [
        {"name": f"{prefix}codebook_collapsed", "value": flag, "step": step}
        for step, flag in enumerate(known, start=1)
    ]
    alarm = CollapseAlarm(said.append, entries)
    for step, flag in enumerate(flags, start=len(known) + 1):
        alarm(_metrics(flag, prefix), step)
    return said


def test_it_says_where_how_far_and_what_to_try() -> None:
    [text] = _said(0, 0, 1, 1, 1)
    assert text.startswith("update 3: the codebook has collapsed (collapse_below)")
    assert "the batch is 2.5, 0.5% of what is possible" in text
    assert all(word in text for word in ("codebook_start", "kl_weight", "temperature_steps"))


@pytest.mark.parametrize(
    ("flags", "updates"),
    [
        ((0, 0, 0, 0), []),
        ((1, 1, 1, 1), [1]),
        ((1, 0, 1, 0, 0, 1), [1]),  # of one batch that was above it nothing is said
        ((1, 0, 0, 0, 0), [1, 4]),
        ((1, 0, 0, 0, 1, 1), [1, 4, 5]),
        ((0.5, 0, 0, 0), [1, 4]),  # of one of two ranks
    ],
)
def test_it_is_said_once_and_so_is_its_end(flags: tuple[float, ...], updates: list[int]) -> None:
    said = _said(*flags)
    assert [int(text.split()[1].rstrip(":")) for text in said] == updates
    for text, word in zip(said, ("has collapsed", "in use again", "has collapsed"), strict=False):
        assert word in text


def test_judged_pictures_are_looked_at_too_and_one_collapse_is_said_once() -> None:
    said = list[str]()
    alarm = CollapseAlarm(said.append, ())
    alarm(_metrics(0), 10)
    alarm(_metrics(1, "held_out/"), 10)
    alarm(_metrics(1), 20)
    assert len(said) == 1
    assert "the perplexity of held out is 2.5" in said[0]
    for step in (30, 40, 50):
        alarm(_metrics(0), step)
    assert len(said) == 1  # those that are held out have said nothing new
    for step in (30, 40, 50):
        alarm(_metrics(0, "held_out/"), step)
    assert len(said) == 2


def test_a_resumed_training_does_not_say_it_again() -> None:
    assert _said(1, 1, known=(0, 1)) == []
    assert len(_said(1, 1, known=(1, 0, 0, 0))) == 1
