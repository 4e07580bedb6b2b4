"""What an exact checker says of drawn pictures, and how far it can be trusted.

A checker is a module of `tasks.checkers` with `check_many(pictures, scenes)`, pictures uint8
[N, S, S, 3]; its verdicts are dataclasses of aspects (True, False, or None where nothing was asked)
with a property `right`, all of them together.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from schemas.base import digest
from schemas.fingerprint import code_digests
from schemas.scene import Scene, parse_caption
from tasks.candidates import PromptCandidates

Verdict = Mapping[str, bool | None]
RIGHT = "right"


class Checker:
    """A checker by its name; its digest is that of its code."""

    def __init__(self, name: str) -> None:
        module = f"tasks.checkers.{name}"
        self.name = f"checker:{name}"
        self.digest = digest(code_digests([module]))
        self._check_many = importlib.import_module(module).check_many

    def check(self, pictures: np.ndarray, scenes: Sequence[Scene]) -> list[Verdict]:
        """Verdicts on pictures uint8 [N, 3, S, S], one scene each."""
        if not scenes:
            return []
        found = self._check_many(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)), scenes)
        return [{RIGHT: verdict.right, **asdict(verdict)} for verdict in found]

    def check_candidates(self, prompts: Sequence[PromptCandidates]) -> list[list[Verdict]]:
        """Verdicts on each candidate of each prompt; none for a prompt that asks for no scene."""
        return [self._of_prompt(one) for one in prompts]

    def _of_prompt(self, one: PromptCandidates) -> list[Verdict]:
        scene = parse_caption(one.prompt.text)
        return self.check(one.pictures, [scene] * len(one.pictures)) if scene else []

    def check_captioned(self, pictures: np.ndarray, captions: Sequence[str]) -> list[Verdict]:
        """Verdicts on pictures whose captions describe a scene; the others are left out."""
        scenes = [parse_caption(caption) for caption in captions]
        known = [index for index, scene in enumerate(scenes) if scene]
        return self.check(pictures[known], [scene for scene in scenes if scene])


def shares(verdicts: Sequence[Verdict], prefix: str) -> dict[str, float]:
    """The share of pictures that are right, in each aspect that was asked for."""
    aspects = dict.fromkeys(aspect for verdict in verdicts for aspect in verdict)
    found = {}
    for aspect in aspects:
        asked = [value for verdict in verdicts if (value := verdict[aspect]) is not None]
        if asked:
            found[f"{prefix}{aspect}"] = sum(asked) / len(asked)
    return found
