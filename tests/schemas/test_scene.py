"""The grammar of scenes: what it allows, what it says, and what never occurs in training."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from schemas.scene import (
    COLOURS,
    HELD_OUT,
    HELD_OUT_SIZED,
    SHAPES,
    Scene,
    Thing,
    all_scenes,
    captions,
    is_held_out,
    parse_caption,
    why_held_out,
)

ONE = Scene("white", (Thing("red", "circle", "large"),))
TWO = Scene("grey", (Thing("blue", "square"), Thing("green", "triangle")), "left of")


def test_there_are_as_many_scenes_as_combinations():
    assert len(set(all_scenes(1))) == 6 * 4 * 2 * 3
    # Ordered pairs of different colours, two relations, three backgrounds.
    assert len(set(all_scenes(2))) == 24 * 20 * 2 * 3


@pytest.mark.parametrize("things", [1, 2])
def test_every_caption_is_read_back_as_its_scene(things):
    for scene in all_scenes(things):
        said = captions(scene)
        assert len(set(said)) == len(said) >= 5
        for text in said:
            assert parse_caption(text) == scene, text
            assert parse_caption(text.capitalize().replace(", ", " – ") + ".") == scene


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("A LARGE red circle, on white!", ONE),
        ("blue square left of green triangle on gray", TWO),
        ("a green triangle to the right of a blue square, grey", TWO),
        ("to the right of a blue square is a green triangle, grey background", TWO),
        ("a blue square with a green triangle to its right, on grey", TWO),
    ],
)
def test_prompts_are_read_however_a_person_puts_them(text, scene):
    assert parse_caption(text) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red circle on white",  # no size
        "a large circle on white",
        "a large red circle",
        "a large red circle on white and black",
        "a red circle and a blue square on white",  # no relation
        "a red circle left of a red square on white",  # the pair does not differ in colour
        "a large red circle left of a blue square on white",
        "Photographed on 3 May 2012",
    ],
)
def test_text_that_does_not_say_one_whole_scene_is_none(text):
    assert parse_caption(text) is None


def test_a_scene_survives_json():
    for scene in (ONE, TWO):
        assert Scene.of_record(json.loads(json.dumps(scene.record()))) == scene


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Thing("pink", "circle"), "colour 'pink' is not one of red, green"),
        (lambda: Thing("red", "star"), "shape 'star'"),
        (lambda: Scene("red", ONE.things), "background 'red'"),
        (lambda: Scene("white", ONE.things, "above"), "no relation"),
        (lambda: Scene("white", TWO.things), "relation None"),
        (
            lambda: Scene("white", (Thing("red", "cross"), Thing("red", "circle")), "above"),
            "colour",
        ),
        (lambda: Scene("white", ()), "one or two things"),
    ],
)
def test_what_the_grammar_does_not_have_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_held_out_things_never_occur_in_training_but_their_parts_do():
    for things in (1, 2):
        seen = [s for s in all_scenes(things) if not is_held_out(s)]
        combinations = {thing.combination for scene in seen for thing in scene.things}
        assert not combinations & HELD_OUT
        sized = {(*thing.combination, thing.size) for scene in seen for thing in scene.things}
        assert not sized & HELD_OUT_SIZED
        assert {key[:2] for key in HELD_OUT_SIZED} <= combinations
        colours = Counter(colour for colour, _ in combinations)
        shapes = Counter(shape for _, shape in combinations)
        assert min(colours[colour] for colour in COLOURS) >= 2
        assert min(shapes[shape] for shape in SHAPES) >= 4


def test_why_a_scene_is_held_out_is_said():
    for thing, why in (
        (Thing("red", "triangle", "small"), "combination"),
        (Thing("cyan", "cross", "large"), "size"),
        (Thing("cyan", "cross", "small"), ""),
    ):
        assert why_held_out(Scene("grey", (thing,))) == why
    pair = (Thing("red", "triangle"), Thing("cyan", "cross"))
    assert why_held_out(Scene("grey", pair, "above")) == "combination"


def test_some_pairings_of_seen_things_are_held_out_in_either_order():
    scenes = [s for s in all_scenes(2) if not {t.combination for t in s.things} & HELD_OUT]
    held_out = {s for s in scenes if is_held_out(s)}
    assert 0.05 < len(held_out) / len(scenes) < 0.2
    for scene in scenes:
        turned = Scene(scene.background, scene.things[::-1], scene.relation)
        assert (turned in held_out) == (scene in held_out)
    partners = Counter(t.combination for s in set(scenes) - held_out for t in s.things)
    assert min(partners.values()) > 50
