"""The checker judges candidates and captioned pictures, each by its own words."""

from __future__ import annotations

import random

import numpy as np

from infra.demo_web.drawing import draw
from schemas.scene import parse_caption
from tasks.candidates import Prompt, PromptCandidates
from tasks.evaluation.checked import Checker, shares


def _picture(caption: str) -> np.ndarray:
    scene = parse_caption(caption)
    assert scene is not None
    return np.asarray(draw(scene, random.Random(0), 64)).transpose(2, 0, 1)


RED = "a large red circle on a white background"
BLUE = "a small blue square on black"
PAIR = "a red cross to the left of a green circle on grey"


def test_right_pictures_are_right_and_wrong_ones_wrong_in_the_right_aspect() -> None:
    pictures = np.stack([_picture(RED), _picture("a large red square on white"), _picture(PAIR)])
    prompts = [
        PromptCandidates(Prompt(RED), np.zeros(3), pictures, np.zeros(3)),
        PromptCandidates(Prompt("hello"), np.zeros(3), pictures, np.zeros(3)),
    ]
    found = Checker("shapes").check_candidates(prompts)
    assert [verdict["right"] for verdict in found[0]] == [True, False, False]
    assert found[0][1]["colour"]
    assert not found[0][1]["shape"]
    assert found[1] == []


def test_pictures_without_a_scene_in_their_caption_are_left_out() -> None:
    texts = [RED, "photo of my cat", BLUE, PAIR]
    pictures = np.stack(
        [_picture(text) if parse_caption(text) else _picture(RED) for text in texts]
    )
    verdicts = Checker("shapes").check_captioned(pictures, texts)
    assert len(verdicts) == 3
    found = shares(verdicts, "checker/originals/")
    assert found["checker/originals/right"] == 1.0
    assert found["checker/originals/relation"] == 1.0  # asked of one picture only


def test_shares_count_only_what_was_asked() -> None:
    verdicts = [{"right": True, "size": None}, {"right": False, "size": True}]
    assert shares(verdicts, "x/") == {"x/right": 0.5, "x/size": 1.0}


def test_the_digest_is_that_of_the_code() -> None:
    assert Checker("shapes").digest == Checker("shapes").digest
    assert len(Checker("shapes").digest) == 64
