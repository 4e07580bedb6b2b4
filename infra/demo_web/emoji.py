"""The glyphs of a colour emoji font as pictures, with their Unicode names as captions.

Skin-tone variants are read from the font's ligatures (GSUB): a base and one of the five modifiers
of Fitzpatrick's scale. Of each family one tone is held out, in turn, so that a model can be asked
for an emoji and a tone which it knows but has not seen together. Flags and joined sequences are
left out: the Unicode database has no names for them.
"""

from __future__ import annotations

import functools
import io
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from infra.demo_web.kinds import Kind
from infra.demo_web.prompts import Prompt
from infra.demo_web.subjects import Subject

DEFAULT_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")

TONES = {
    0x1F3FB: "light skin tone",
    0x1F3FC: "medium-light skin tone",
    0x1F3FD: "medium skin tone",
    0x1F3FE: "medium-dark skin tone",
    0x1F3FF: "dark skin tone",
}
# Below lie letters, digits and punctuation; the first symbols of emoji are the arrows.
_FIRST_SYMBOL = 0x2190
_REGIONAL = range(0x1F1E6, 0x1F200)
# Pictures for dirt that may come as far as deduplication; each is used once.
RESERVE = 128
_OUTLINE_SIZE = 109


@dataclass(frozen=True)
class Glyph:
    """One emoji.

    Attributes:
        text: its code points; name: of the glyph in the font.
        family: the base's name in words where there are variants in other skin tones.
        tone: in words, or "".
    """

    text: str
    name: str
    caption: str
    family: str | None = None
    tone: str = ""


@dataclass(frozen=True)
class Glyphs:
    """The emoji on the site, those put aside for its dirt, and those that are held out."""

    shown: tuple[Glyph, ...]
    reserve: tuple[Glyph, ...]
    held_out: tuple[Glyph, ...]

    def prompts(self, seed: int, count: int = 20) -> dict[str, list[Prompt]]:
        """Prompts for held-out variants, and for emoji that are on the site."""
        rng = random.Random(f"emoji prompts/{seed}")
        held_out = rng.sample(self.held_out, min(count, len(self.held_out)))
        seen = rng.sample(self.shown, min(count, len(self.shown)))
        return {
            "held_out": [_prompt(glyph, "combination") for glyph in held_out],
            "seen": [_prompt(glyph, "") for glyph in seen],
        }


@dataclass(frozen=True)
class EmojiSubjects:
    """The emoji as a site's pictures, each plain one once."""

    glyphs: Glyphs
    font: Path

    def plain(self, rng: random.Random, number: int) -> Subject:
        """The emoji number `number`."""
        return self._subject(self.glyphs.shown[number])

    def any(self, rng: random.Random, number: int) -> Subject:
        """An emoji that is not among the plain ones; another for each of `RESERVE` numbers."""
        return self._subject(self.glyphs.reserve[number % len(self.glyphs.reserve)])

    def reworded(self, rng: random.Random, subject: Subject) -> str:
        """The same caption: an emoji has one name."""
        return subject.caption

    def _subject(self, glyph: Glyph) -> Subject:
        kind = Kind.SKIN_TONE if glyph.family else Kind.GOOD
        picture = draw_glyph(glyph, self.font)
        return Subject(picture, glyph.caption, kind=kind, group=glyph.family)


def read_glyphs(font: Path) -> Glyphs:
    """The emoji of a font that have names.

    Raises:
        FileNotFoundError: without the font, saying what to install.
        ValueError: for a font with too few symbols to make a site of.
    """
    table = _open(font)
    characters: dict[int, str] = table.getBestCmap()
    found = list(_symbols(characters))
    variants = {
        glyph.text: list(_variants(glyph, characters, _ligatures(table))) for glyph in found
    }
    rng = random.Random("emoji reserve")
    single = [glyph for glyph in found if not variants[glyph.text]]
    if len(single) < 2 * RESERVE:
        raise ValueError(f"{font} has {len(single)} named symbols; an emoji font has over 1,000")
    reserve = set(rng.sample(single, RESERVE))
    shown, held_out = [glyph for glyph in single if glyph not in reserve], []
    families = [glyph for glyph in found if variants[glyph.text]]
    for number, base in enumerate(families):
        tones = variants[base.text]
        held_out.append(tones.pop(number % len(tones)))
        shown += [Glyph(base.text, base.name, base.caption, family=base.caption), *tones]
    return Glyphs(tuple(shown), tuple(g for g in single if g in reserve), tuple(held_out))


def draw_glyph(glyph: Glyph, font: Path) -> Image.Image:
    """The emoji on white, square, at the size at which the font has it."""
    stored = _bitmap(glyph.name, font)
    image = stored if stored is not None else _outline(glyph.text, font)
    side = max(image.size)
    canvas = Image.new("RGBA", (side, side), "white")
    place = ((side - image.width) // 2, (side - image.height) // 2)
    canvas.alpha_composite(image, place)
    return canvas.convert("RGB")


@functools.lru_cache(maxsize=2)
def _open(font: Path) -> TTFont:
    if not font.is_file():
        raise FileNotFoundError(
            f"no font at {font}: install a colour emoji font (on Debian and Ubuntu:"
            " apt-get install fonts-noto-color-emoji) or name one with --font"
        )
    return TTFont(io.BytesIO(font.read_bytes()), lazy=True)


def _symbols(characters: dict[int, str]) -> Iterator[Glyph]:
    for code, name in sorted(characters.items()):
        words = unicodedata.name(chr(code), "").lower()
        symbol = code >= _FIRST_SYMBOL and unicodedata.category(chr(code)) in ("So", "Sm", "Po")
        if words and symbol and code not in _REGIONAL and code not in TONES:
            yield Glyph(chr(code), name, words)


def _variants(
    base: Glyph, characters: dict[int, str], ligatures: dict[tuple[str, str], str]
) -> Iterator[Glyph]:
    for tone, words in TONES.items():
        name = ligatures.get((base.name, characters.get(tone, "")))
        if name is not None:
            caption = f"{base.caption}, {words}"
            yield Glyph(base.text + chr(tone), name, caption, base.caption, words)


@functools.lru_cache(maxsize=2)
def _ligatures(table: TTFont) -> dict[tuple[str, str], str]:
    """Ligatures of two glyphs, by the names of their parts."""
    found: dict[tuple[str, str], str] = {}
    if "GSUB" not in table:
        return found
    for lookup in table["GSUB"].table.LookupList.Lookup:
        for outer in lookup.SubTable:
            inner = getattr(outer, "ExtSubTable", outer)
            for first, ligatures in getattr(inner, "ligatures", {}).items():
                for ligature in ligatures:
                    if len(ligature.Component) == 1:
                        found[first, ligature.Component[0]] = ligature.LigGlyph
    return found


def _bitmap(name: str, font: Path) -> Image.Image | None:
    """The glyph's picture in the font (CBDT, its largest strike), or None if it holds none."""
    table = _open(font)
    if "CBDT" not in table:
        return None
    strikes: list[dict[str, Any]] = table["CBDT"].strikeData
    stored = [strike[name].imageData for strike in strikes if name in strike]
    if not stored:
        return None
    images = [Image.open(io.BytesIO(data)).convert("RGBA") for data in stored]
    return max(images, key=lambda image: image.width)


def _outline(text: str, font: Path) -> Image.Image:
    """The glyph as Pillow draws it: for fonts of outlines."""
    face = ImageFont.truetype(str(font), _OUTLINE_SIZE)
    left, top, right, bottom = face.getbbox(text)
    size = max(1, round(right - left)), max(1, round(bottom - top))
    image = Image.new("RGBA", size)
    pen = ImageDraw.Draw(image)
    pen.text((-left, -top), text, font=face, fill="black", embedded_color=True)
    return image


def _prompt(glyph: Glyph, why: str) -> Prompt:
    return {"prompt": glyph.caption, "scene": None, "why": why}
