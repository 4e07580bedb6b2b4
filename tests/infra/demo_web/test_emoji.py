"""Emoji: names, skin tones and pictures from a colour font, and symbols from any other."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib
import numpy as np
import pytest
from PIL import Image

from infra.demo_web.emoji import (
    DEFAULT_FONT,
    RESERVE,
    TONES,
    draw_glyph,
    read_glyphs,
)
from infra.demo_web.kinds import Expected, Kind
from infra.demo_web.make import make_site
from infra.demo_web.site import read_site
from infra.demo_web.truth import read_truth

# A font of outlines that comes with a library which is there anyway.
PLAIN_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
MATH_FONT = PLAIN_FONT.with_name("cmr10.ttf")

needs_font = pytest.mark.skipif(
    not DEFAULT_FONT.is_file(), reason="fonts-noto-color-emoji is not installed"
)


def test_a_missing_font_is_an_error_that_says_what_to_install(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install fonts-noto-color-emoji"):
        read_glyphs(tmp_path / "none.ttf")


def test_a_font_without_symbols_is_refused():
    with pytest.raises(ValueError, match="an emoji font has over 1,000"):
        read_glyphs(MATH_FONT)


def test_any_font_with_symbols_will_do():
    glyphs = read_glyphs(PLAIN_FONT)
    captions = {glyph.caption: glyph for glyph in glyphs.shown + glyphs.reserve}
    assert len(captions) > 1000
    picture = np.asarray(draw_glyph(captions["black sun with rays"], PLAIN_FONT))
    assert picture.shape[0] == picture.shape[1] > 50
    assert picture.min() == 0
    assert (picture[0] == 255).mean() > 0.5


@needs_font
def test_a_colour_font_has_names_and_skin_tones():
    glyphs = read_glyphs(DEFAULT_FONT)
    everything = glyphs.shown + glyphs.reserve + glyphs.held_out
    assert len({glyph.text for glyph in everything}) == len(everything)
    assert 1500 < len(glyphs.shown) < 2500
    assert len(glyphs.reserve) == RESERVE
    families = {glyph.family for glyph in glyphs.shown if glyph.family}
    assert "waving hand sign" in families
    for family in families:
        tones = {glyph.tone for glyph in everything if glyph.family == family and glyph.tone}
        assert tones == set(TONES.values())
    # One tone of each family is held out, and all tones occur with other families.
    assert {glyph.family for glyph in glyphs.held_out} == families
    assert {glyph.tone for glyph in glyphs.shown} == {"", *TONES.values()}


@needs_font
def test_a_tone_changes_the_picture_and_not_its_outline():
    glyphs = read_glyphs(DEFAULT_FONT)
    waving = [glyph for glyph in glyphs.shown if glyph.family == "waving hand sign"]
    pictures = [np.asarray(draw_glyph(glyph, DEFAULT_FONT), float) for glyph in waving]
    assert len(pictures) == 5
    for one, other in itertools.pairwise(pictures):
        assert one.shape == other.shape == (136, 136, 3)
        assert np.abs(one - other).mean() > 3
        assert ((one == 255).all(-1) == (other == 255).all(-1)).mean() > 0.97


@needs_font
def test_the_grinning_face_is_round_and_yellow():
    glyph = next(g for g in read_glyphs(DEFAULT_FONT).shown if g.caption == "grinning face")
    picture = np.asarray(draw_glyph(glyph, DEFAULT_FONT), float)
    red, green, blue = np.median(picture.reshape(-1, 3), axis=0)
    assert red > 200
    assert green > 150
    assert blue < 100


@needs_font
def test_the_site_shows_each_emoji_once_and_holds_some_out(tmp_path):
    summary = make_site(tmp_path / "emoji", "emoji", seed=1)
    rows = read_truth(tmp_path / "emoji")
    glyphs = read_glyphs(DEFAULT_FONT)
    shown = [row for row in rows if row.kind in (Kind.GOOD, Kind.SKIN_TONE)]
    assert len(shown) == len(glyphs.shown)
    assert {row.caption for row in shown} == {glyph.caption for glyph in glyphs.shown}
    assert not {row.caption for row in rows} & {glyph.caption for glyph in glyphs.held_out}
    assert {row.expected for row in rows if row.kind is Kind.SKIN_TONE} == {Expected.EITHER}
    # Dirt that may come as far as deduplication shows other emoji than the plain ones.
    reaching = (Kind.EXACT_DUPLICATE, Kind.NEAR_DUPLICATE, Kind.ODD_FORMAT, Kind.REDIRECTED)
    groups: dict[str, set[str]] = {}
    for row in rows:
        if row.kind in reaching:
            groups.setdefault(row.caption, set()).add(row.group or row.image_url)
    assert all(len(owners) == 1 for owners in groups.values())
    assert not set(groups) & {row.caption for row in shown}
    pages = read_site(tmp_path / "emoji")
    for row in rows:
        if row.kind is Kind.ANIMATED:
            parts = urlsplit(row.image_url)
            route = pages.routes[parts.netloc, parts._replace(scheme="", netloc="").geturl()]
            assert Image.open(io.BytesIO(pages.body(route))).n_frames == 2
    prompts = json.loads((tmp_path / "emoji/prompts.json").read_text())
    assert len(prompts["held_out"]) == len(prompts["seen"]) == 20
    assert summary.images[Kind.SKIN_TONE] > 500
