"""What the emoji site says around its emoji."""

from __future__ import annotations

from dataclasses import replace

from infra.demo_web.dialect import Hosts
from infra.demo_web.first_words import FIRST

EMOJI = replace(
    FIRST,
    hosts=Hosts(
        pages=("http://emoji.test", "https://www.emoji.test"),
        images=("https://img.emoji.test", "http://glyphs.test"),
        forbidding=(("http://emoji.test", "/members/"), ("https://img.emoji.test", "/private/")),
        closed="closed.emoji.test",
        broken="broken.emoji.test",
        busy="http://busy.emoji.test",
        tracker="http://track.emoji.test",
    ),
    title="Emoji and their names",
    prose=("Each of these has a name.", "The drawings come from a font.", "Seen on {date}."),
)
