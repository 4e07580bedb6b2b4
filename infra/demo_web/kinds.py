"""The kinds of images on the demo web, and what a pipeline should make of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Expected(StrEnum):
    """What should become of a pair."""

    KEPT = "kept"
    DROPPED = "dropped"
    # Of a group all but one go, and it does not matter which stays.
    ONE_KEPT = "one_kept"
    # Pictures so alike that either is right.
    EITHER = "either"


class Policy(StrEnum):
    """What the owner of an image or its page permits."""

    OPEN = "open"
    # robots.txt forbids it: it must never be requested.
    NEVER_REQUESTED = "never_requested"
    # A header of the answer forbids it: its body must not be read.
    NEVER_READ = "never_read"


class Kind(StrEnum):
    """What an image is like; the value is its name in the truth table and in reports."""

    GOOD = "good"
    THROTTLED = "throttled"
    SLOW = "slow"
    REDIRECTED = "redirected"
    ODD_FORMAT = "odd_format"
    SKIN_TONE = "skin_tone"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    BOILERPLATE = "boilerplate"
    FOREIGN_LANGUAGE = "foreign_language"
    NO_CAPTION = "no_caption"
    SHORT_CAPTION = "short_caption"
    BANNER = "banner"
    TRACKING_PIXEL = "tracking_pixel"
    WRONG_ASPECT = "wrong_aspect"
    TOO_SMALL = "too_small"
    BLANK = "blank"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    BOMB = "bomb"
    ANIMATED = "animated"
    MISSING = "missing"
    SERVER_ERROR = "server_error"
    STALLED = "stalled"
    ENDLESS = "endless"
    REFUSED_REDIRECT = "refused_redirect"
    REDIRECT_LOOP = "redirect_loop"
    REFUSED_ADDRESS = "refused_address"
    REFUSED_SCHEME = "refused_scheme"
    ROBOTS_TXT = "robots_txt"
    ROBOTS_UNAVAILABLE = "robots_unavailable"
    NOAI_HEADER = "noai_header"
    TDM_HEADER = "tdm_header"
    PAGE_OPT_OUT = "page_opt_out"


@dataclass(frozen=True)
class Rule:
    """What a kind is in words, what should become of it, and how often it occurs.

    `share` is in images for each good image; `least` is how many there are at least, and `most`
    how many at most, on a site of any size.
    """

    meaning: str
    expected: Expected
    share: float
    least: int = 1
    most: int = 1_000_000
    policy: Policy = Policy.OPEN


_KEPT, _DROPPED = Expected.KEPT, Expected.DROPPED

# Throttled, slow and stalled answers cost a run time that is not work, so they are few.
RULES: dict[Kind, Rule] = {
    Kind.GOOD: Rule("a picture with a caption that says what it shows", _KEPT, 1.0),
    Kind.THROTTLED: Rule("429 with Retry-After at first, then the picture", _KEPT, 0.004, 2, 12),
    Kind.SLOW: Rule("the picture, after a second or two", _KEPT, 0.004, 2, 16),
    Kind.REDIRECTED: Rule("redirects that lead to the picture", _KEPT, 0.01, 3),
    Kind.ODD_FORMAT: Rule("CMYK, palette, 16 bit, EXIF-rotated and the like", _KEPT, 0.008, 6),
    Kind.SKIN_TONE: Rule("a variant of an emoji in another skin tone", Expected.EITHER, 0.0, 0),
    Kind.EXACT_DUPLICATE: Rule("the same bytes elsewhere", Expected.ONE_KEPT, 0.02, 2),
    Kind.NEAR_DUPLICATE: Rule("the same picture re-encoded", Expected.ONE_KEPT, 0.03, 3),
    Kind.BOILERPLATE: Rule("a caption that says nothing of the picture", _DROPPED, 0.06, 4),
    Kind.FOREIGN_LANGUAGE: Rule("a caption that is not English", _DROPPED, 0.06, 4),
    Kind.NO_CAPTION: Rule("no caption at all", _DROPPED, 0.04, 3),
    Kind.SHORT_CAPTION: Rule("a caption of a word or less", _DROPPED, 0.01, 2),
    Kind.BANNER: Rule("an advertisement, much wider or higher than square", _DROPPED, 0.03, 3),
    Kind.TRACKING_PIXEL: Rule("one transparent pixel", _DROPPED, 0.03, 3),
    Kind.WRONG_ASPECT: Rule("a scene, on a strip", _DROPPED, 0.025, 2),
    Kind.TOO_SMALL: Rule("a thumbnail of a few pixels", _DROPPED, 0.015, 2),
    Kind.BLANK: Rule("one colour, and a caption that says otherwise", _DROPPED, 0.01, 2),
    Kind.TRUNCATED: Rule("a file that breaks off", _DROPPED, 0.015, 4),
    Kind.NOT_AN_IMAGE: Rule("HTML, text, JSON, SVG, nothing", _DROPPED, 0.015, 5),
    Kind.BOMB: Rule("a small file that unpacks to gigabytes", _DROPPED, 0.001, 2, 6),
    Kind.ANIMATED: Rule("several frames, of which one fits the caption", _DROPPED, 0.003, 2),
    Kind.MISSING: Rule("404 or 410", _DROPPED, 0.02, 3),
    Kind.SERVER_ERROR: Rule("500, 502 or 503, always", _DROPPED, 0.002, 1, 12),
    Kind.STALLED: Rule("headers, and then nothing", _DROPPED, 0.0005, 1, 2),
    Kind.ENDLESS: Rule("a body that never ends", _DROPPED, 0.0005, 1, 2),
    Kind.REFUSED_REDIRECT: Rule("a redirect to a private address", _DROPPED, 0.008, 4),
    Kind.REDIRECT_LOOP: Rule("redirects in a circle", _DROPPED, 0.002, 2),
    Kind.REFUSED_ADDRESS: Rule("a private address in the page", _DROPPED, 0.005, 3),
    Kind.REFUSED_SCHEME: Rule("data:, ftp:, file: and the like", _DROPPED, 0.005, 3),
    Kind.ROBOTS_TXT: Rule(
        "forbidden by robots.txt", _DROPPED, 0.02, 4, policy=Policy.NEVER_REQUESTED
    ),
    Kind.ROBOTS_UNAVAILABLE: Rule(
        "on a host whose robots.txt answers 503", _DROPPED, 0.002, 2, 8, Policy.NEVER_REQUESTED
    ),
    Kind.NOAI_HEADER: Rule(
        "X-Robots-Tag: noai on the image", _DROPPED, 0.015, 3, policy=Policy.NEVER_READ
    ),
    Kind.TDM_HEADER: Rule(
        "tdm-reservation: 1 on the image", _DROPPED, 0.01, 2, policy=Policy.NEVER_READ
    ),
    Kind.PAGE_OPT_OUT: Rule(
        "on a page that forbids AI in a header or a meta element",
        _DROPPED,
        0.015,
        3,
        policy=Policy.NEVER_REQUESTED,
    ),
}


def amounts(good: int, factor: float = 1.0) -> dict[Kind, int]:
    """How many images of each kind a site with `good` plain ones has.

    Args:
        good: plain good images.
        factor: multiplies every share but that of the plain ones.
    """
    counts = {}
    for kind, rule in RULES.items():
        wanted = round(good * rule.share * factor)
        counts[kind] = good if kind is Kind.GOOD else min(rule.most, max(rule.least, wanted))
    return counts
