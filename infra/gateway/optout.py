"""What an answer's headers say about use for machine learning, read before the body.

X-Robots-Tag: noai, noimageai           also addressed to one agent: `tapirbot: noai`
tdm-reservation: 1                      TDM Reservation Protocol (W3C community group)
Content-Usage: train-ai=n               IETF aipref vocabulary, a structured field
Content-Signal: ai-train=no             the same in Cloudflare's words

The vocabulary (draft-ietf-aipref-vocab) changes: earlier drafts nest training in wider categories,
of which the more special decides; later ones nest nothing. Whichever a site followed, `n` for any
category that covers training is taken for no.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_SIGNALS = ("X-Robots-Tag", "TDM-Reservation", "TDM-Policy", "Content-Usage", "Content-Signal")
# Directives whose value follows a colon, and which are therefore no agent's name.
_VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
# Categories that cover training, of all drafts, and Cloudflare's.
_TRAINING = ("all", "bots", "tdm", "ai", "train-ai", "ai-train", "train-genai", "genai")
_NO = re.compile(
    rf"(?<![\w.*-])(?:{'|'.join(_TRAINING)})\s*=\s*\"?(?:n|no|\?0)(?![\w.*-])", re.IGNORECASE
)


def opt_out(headers: Headers, agent: str, directives: frozenset[str] = DIRECTIVES) -> str | None:
    """The header that forbids use, as "name: value", or None.

    Args:
        agent: our product token in lower case, for directives addressed to one agent.
        directives: directives of X-Robots-Tag that forbid; by default those of img2dataset.
    """
    for value in headers.getall("X-Robots-Tag", []):
        if any(found in directives for found in _robots_directives(value, agent)):
            return f"X-Robots-Tag: {value}"
    for value in headers.getall("TDM-Reservation", []):
        if value.strip() == "1":
            return "tdm-reservation: 1"
    for name in ("Content-Usage", "Content-Signal"):
        value = ", ".join(headers.getall(name, []))
        if forbids_training(value):
            return f"{name}: {value}"
    return None


def forbids_training(usage: str) -> bool:
    """Whether a value of Content-Usage or Content-Signal says no to a use that covers training."""
    return _NO.search(usage) is not None


def signals(headers: Headers) -> str:
    """All opt-out headers that are there, whatever they say, `; ` between them."""
    found = ((name, value) for name in _SIGNALS for value in headers.getall(name, []))
    return "; ".join(f"{name.lower()}: {value}" for name, value in found)


def _robots_directives(value: str, agent: str) -> Iterator[str]:
    """The directives of one header line that are meant for us, in lower case."""
    addressed = True
    for part in value.lower().split(","):
        directive = part.strip()
        name, colon, rest = directive.partition(":")
        if colon and name.strip() not in _VALUED:
            # `otherbot: noindex, noai, ourbot: none`: an agent's name holds until the next one.
            addressed, directive = name.strip() in (agent, "*"), rest.strip()
        if addressed:
            yield directive
