"""The prompts a model trained on the site is asked to draw."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from schemas.scene import HELD_OUT, Scene, all_scenes, captions, is_held_out

PROMPTS_FILE = "prompts.json"

Prompt = dict[str, Any]


# All 30 held-out scenes of one thing are asked for, and so many of the other sorts.
PAIRINGS, COMBINATIONS, SEEN_ONE, SEEN_TWO = 20, 10, 20, 12


def scene_prompts(seed: int) -> dict[str, list[Prompt]]:
    """Prompts by sort: held_out_one, held_out_two, seen_one, seen_two.

    Each is {"prompt", "scene", "why"}; `why` says what of it never occurs in training:
    "combination" (a colour with a shape), "pairing" (two things together), or "" (it does occur).
    """
    rng = random.Random(f"prompts/{seed}")
    one = [scene for scene in all_scenes(1) if is_held_out(scene)]
    two = list(all_scenes(2))
    combinations = [scene for scene in two if _why(scene) == "combination"]
    pairings = [scene for scene in two if _why(scene) == "pairing"]
    return {
        "held_out_one": _prompts(rng.sample(one, len(one)), rng),
        "held_out_two": _prompts(
            rng.sample(pairings, PAIRINGS) + rng.sample(combinations, COMBINATIONS),
            rng,
        ),
        "seen_one": _prompts(_seen(1, SEEN_ONE, rng), rng),
        "seen_two": _prompts(_seen(2, SEEN_TWO, rng), rng),
    }


def write_prompts(folder: Path, prompts: dict[str, list[Prompt]]) -> None:
    """Write the prompts of the site in `folder`."""
    text = json.dumps(prompts, indent=1, ensure_ascii=False)
    (folder / PROMPTS_FILE).write_text(text + "\n", encoding="utf-8")


def _seen(things: int, count: int, rng: random.Random) -> list[Scene]:
    return rng.sample([scene for scene in all_scenes(things) if not is_held_out(scene)], count)


def _prompts(scenes: list[Scene], rng: random.Random) -> list[Prompt]:
    return [
        {"prompt": rng.choice(captions(scene)), "scene": scene.record(), "why": _why(scene)}
        for scene in scenes
    ]


def _why(scene: Scene) -> str:
    if any(thing.combination in HELD_OUT for thing in scene.things):
        return "combination"
    return "pairing" if is_held_out(scene) else ""
