"""The prompts a model trained on the site is asked to draw."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from schemas.scene import Scene, all_scenes, captions, is_held_out, why_held_out

PROMPTS_FILE = "prompts.json"

Prompt = dict[str, Any]


# All held-out scenes of one thing are asked for (24 and 18), and so many of the other sorts.
PAIRINGS, COMBINATIONS, SEEN_ONE, SEEN_TWO = 20, 10, 20, 12


def scene_prompts(seed: int) -> dict[str, list[Prompt]]:
    """Prompts by sort.

    held_out_one            one thing whose colour, shape and size never occur together
    held_out_combination    one thing whose colour and shape never do, in any size or pair
    held_out_two            two things that never occur together, or one of which never occurs
    seen_one, seen_two      scenes that do occur

    Each is {"prompt", "scene", "why"}; `why` is `schemas.scene.why_held_out`.
    """
    rng = random.Random(f"prompts/{seed}")
    one = [scene for scene in all_scenes(1) if is_held_out(scene)]
    two = list(all_scenes(2))
    combinations = [scene for scene in two if why_held_out(scene) == "combination"]
    pairings = [scene for scene in two if why_held_out(scene) == "pairing"]
    asked = {
        "held_out_one": _shuffled([s for s in one if why_held_out(s) == "size"], rng),
        "held_out_combination": _shuffled(
            [s for s in one if why_held_out(s) == "combination"], rng
        ),
        "held_out_two": rng.sample(pairings, PAIRINGS) + rng.sample(combinations, COMBINATIONS),
        "seen_one": _seen(1, SEEN_ONE, rng),
        "seen_two": _seen(2, SEEN_TWO, rng),
    }
    return {sort: _prompts(scenes, rng) for sort, scenes in asked.items()}


def write_prompts(folder: Path, prompts: dict[str, list[Prompt]]) -> None:
    """Write the prompts of the site in `folder`."""
    text = json.dumps(prompts, indent=1, ensure_ascii=False)
    (folder / PROMPTS_FILE).write_text(text + "\n", encoding="utf-8")


def _shuffled(scenes: list[Scene], rng: random.Random) -> list[Scene]:
    return rng.sample(scenes, len(scenes))


def _seen(things: int, count: int, rng: random.Random) -> list[Scene]:
    return rng.sample([scene for scene in all_scenes(things) if not is_held_out(scene)], count)


def _prompts(scenes: list[Scene], rng: random.Random) -> list[Prompt]:
    return [
        {"prompt": rng.choice(captions(scene)), "scene": scene.record(), "why": why_held_out(scene)}
        for scene in scenes
    ]
