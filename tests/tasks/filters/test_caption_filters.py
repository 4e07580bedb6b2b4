"""Each caption filter by itself: its bounds, its reasons, its parameters."""

import random
import re
from pathlib import Path

import pytest

from schemas.records import DropReason
from tasks.filters import as_specs, build_filter, check_specs, filter_modules
from tasks.lexicon.ascii_words import LETTERS, LETTERS_AND_DIGITS, WORD_CHARACTERS
from tasks.lexicon.formats import FORMATS

HERE = Path(__file__).parent


def reason(spec, caption):
    pair = {"caption": caption, "language": None}
    found = build_filter(spec).judge(pair)
    return (found.reason if found else None), pair["language"]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red circle", None),
        ("red circle", DropReason.TOO_SHORT),
        ("", DropReason.TOO_SHORT),
        ("1 2 3 4 5 6 7", DropReason.TOO_SHORT),  # numbers are no words
        ("a b", DropReason.TOO_SHORT),
        ("it's a mother-in-law", None),
        ("word " * 11, DropReason.TOO_LONG),
        ("x" * 101, DropReason.TOO_LONG),
        ("红色的圆", None),
    ],
)
def test_length(caption, expected):
    spec = {"caption_length": {"max_characters": 100, "max_words": 10, "min_characters": 4}}

    assert reason(spec, caption)[0] is expected


def test_the_bounds_themselves_are_allowed():
    bounds = {"min_words": 3, "max_words": 3, "min_characters": 5, "max_characters": 5}

    assert reason({"caption_length": bounds}, "a b c")[0] is None


@pytest.mark.parametrize(
    ("caption", "languages", "expected"),
    [
        ("a large red circle on a white background", ["en"], (None, "en")),
        ("ein großer roter Kreis auf weißem Grund", ["en"], (DropReason.WRONG_LANGUAGE, None)),
        ("ein großer roter Kreis auf weißem Grund", ["en", "de"], (None, "de")),
        ("ein großer roter Kreis auf weißem Grund", ["de"], (None, "de")),
        ("a large red circle on a white background", ["de"], (DropReason.WRONG_LANGUAGE, None)),
        ("большой красный круг на белом фоне", ["en"], (DropReason.WRONG_LANGUAGE, None)),
        ("большой красный круг на белом фоне", ["ru"], (None, "ru")),
        ("白い背景に大きな赤い円", ["en"], (DropReason.WRONG_LANGUAGE, None)),
        ("A LARGE RED CIRCLE", ["en"], (None, "en")),
        ("temple in Kyoto (京都)", ["en"], (None, "en")),
        ("☃ 2023", ["en"], (None, None)),
        ("tea ceremony", ["en"], (None, "en")),
        ("flag: Côte d’Ivoire", ["en"], (None, "en")),
    ],
)
def test_language(caption, languages, expected):
    assert reason({"language": {"languages": languages}}, caption) == expected


def test_a_language_that_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="language 'xx' cannot be told; these can: af"):
        build_filter({"language": {"languages": ["xx"]}})


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (LETTERS, r"[^\W\d_]+"),
        (LETTERS_AND_DIGITS, r"[^\W_]+"),
        (WORD_CHARACTERS, r"\w+"),
    ],
)
def test_words_of_ascii_are_those_of_the_regular_expression(words, pattern):
    rng = random.Random(5)
    texts = ["".join(map(chr, rng.choices(range(128), k=rng.randrange(60)))) for _ in range(500)]

    assert [words(text) for text in texts] == [re.findall(pattern, one.lower()) for one in texts]


def test_the_share_of_boilerplate_is_declared():
    caption = "Click to enlarge: a red circle and a blue square"

    assert reason({"boilerplate": {}}, caption)[0] is None
    assert reason({"boilerplate": {"share": 0.2}}, caption)[0] is DropReason.BOILERPLATE


def test_forms_are_found_alike_in_either_case_and_beside_other_letters():
    """ASCII captions take another, quicker way than others; cuts of earlier forms stay in them."""
    captions = (HERE / "boilerplate.txt").read_text().splitlines()
    assert all(caption.isascii() for caption in captions[:5])

    for caption in captions:
        for written in (caption, caption.upper(), f"{caption} ¦ 3 May 2011 ¦ {caption.title()}"):
            for kind, form in FORMATS.items():
                assert form.cut(written, " ¦ ") == form.pattern.subn(" ¦ ", written), kind


def test_an_objection_says_what_was_found():
    found = build_filter({"boilerplate": {}}).judge({"caption": "IMG_2034.JPG, Canon EOS 5D"})

    assert "file name" in found.detail and "camera" in found.detail


def test_specs_are_written_out_in_full():
    (spec,) = check_specs(as_specs(["caption_length"]), "caption")

    assert spec["caption_length"]["min_words"] == 3
    assert filter_modules((spec,)) == ("tasks.filters.caption_length",)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"langage": {}}, "no filter 'langage'; did you mean 'language'"),
        ({"language": {"margn": 3}}, "no parameter 'margn'; did you mean 'margin'"),
        ({"language": {}, "boilerplate": {}}, "a filter is written"),
        ({"near_blank": {}}, "looks at the picture, this stage at the caption"),
        ({"boilerplate": {"share": 2}}, "less than or equal to 1"),
    ],
)
def test_wrong_specs_are_refused_with_the_nearest_word(spec, words):
    with pytest.raises(ValueError, match=words):
        check_specs((spec,), "caption")
