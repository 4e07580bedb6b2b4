"""What a page says about the use of its content for machine learning.

The signals are `noai` and `noimageai` (meta robots, `X-Robots-Tag`), the TDM Reservation Protocol
(W3C community group; meta and header), and the preferences of IETF aipref (`Content-Usage`) and
Cloudflare (`Content-Signal`), read as the fetch gateway reads those of images. A directive that is
addressed to another crawler counts, too: a page that forbids AI to one of them has made its wish
known. What merely forbids indexing is noted only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from infra.gateway.optout import forbids_training

HEADERS = ("x-robots-tag", "tdm-reservation", "content-usage", "content-signal")

_FORBIDDING = frozenset({"noai", "noimageai"})
_NOTED = frozenset({"noindex", "noimageindex", "none"})


def signals_of(said: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The opt-out signals among (name, value) of headers and meta elements, each once.

    A meta element's name is that of its header, except that `X-Robots-Tag` is called `robots`.
    """
    found: list[str] = []
    for name, value in ((name.strip().lower(), value.strip().lower()) for name, value in said):
        if name in ("robots", "x-robots-tag"):
            words = re.split(r"[\s,;:]+", value)
            found += [f"{name}: {word}" for word in words if word in _FORBIDDING | _NOTED]
        elif name == "tdm-reservation" and value == "1":
            found.append("tdm-reservation: 1")
        elif name in ("content-usage", "content-signal") and forbids_training(value):
            found.append(f"{name}: {value[:80]}")
    return tuple(dict.fromkeys(found))


def forbids(signals: Iterable[str]) -> bool:
    """Whether one of these signals forbids use for training."""
    return any(
        signal.startswith(("tdm-reservation", "content-"))
        or signal.rpartition(" ")[2] in _FORBIDDING
        for signal in signals
    )
