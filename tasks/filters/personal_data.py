"""E-mail addresses and phone numbers in captions: drop the pair, or mask them.

A masked caption says `[email]` or `[phone]` in their place; the pair keeps the key that its first
caption gave it. A pair that is dropped goes to the table of drops with a masked caption, too. What
looks like a phone number begins with + or 00, follows a word for it, or is grouped as numbers of
North America are; dates, prices, years and sizes are none.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from schemas.records import DropReason
from tasks.filters import Change, FilterParams, Objection

Treatment = Literal["drop", "mask", "keep"]

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}\s?(?:@|\(at\)|\[at\])\s?(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b"
)
_SAID = r"\b(?:tele)?(?:phone|tel|fon|fax|mobile|cell|whatsapp|call|ph|hotline)\b[\s.:#no-]{0,6}"
_GAP = r"[\s().\u2010-\u2013/-]{0,3}"
_PHONE = re.compile(
    rf"(?<![\w+])(?:\+|00)[1-9]{_GAP}(?:\d{_GAP}){{6,13}}\d(?!\w)"
    rf"|{_SAID}\(?\+?\d{_GAP}(?:\d{_GAP}){{4,13}}\d(?!\w)"
    r"|(?<![\w.-])(?:1[ .-])?(?:\([2-9]\d\d\)\s?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])",
    re.IGNORECASE,
)
_AT: Final = ("@", "(at)", "[at]")
_DIGITS: Final = 6  # of the shortest phone number
_NO_DIGITS: Final = bytes(code for code in range(128) if not chr(code).isdigit())


class Params(FilterParams):
    """What becomes of captions with either."""

    emails: Treatment = "mask"
    phones: Treatment = "mask"


class Filter:
    """Looks for what has the form of an address or a number."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def judge(self, pair: dict[str, Any]) -> Objection | Change | None:
        """PERSONAL_DATA, or the masked caption."""
        params = self.params
        caption, emails, phones = masked(
            pair["caption"], params.emails != "keep", params.phones != "keep"
        )
        said = [f"e-mail addresses: {emails}"] * bool(emails)
        said += [f"phone numbers: {phones}"] * bool(phones)
        if (emails and params.emails == "drop") or (phones and params.phones == "drop"):
            pair["caption"] = caption
            return Objection(DropReason.PERSONAL_DATA, ", ".join(said))
        return Change(caption, f"masked {', '.join(said)}") if said else None

    def mask(self, text: str) -> str:
        """What may be kept of a caption that another filter drops, and of what is said of it."""
        return masked(text, self.params.emails != "keep", self.params.phones != "keep")[0]


def masked(text: str, emails: bool = True, phones: bool = True) -> tuple[str, int, int]:
    """A text without e-mail addresses and phone numbers, and how many there were of each."""
    mails = calls = 0
    if emails and any(sign in text for sign in _AT):
        text, mails = _EMAIL.subn("[email]", text)
    if phones and _digits(text) >= _DIGITS:
        text, calls = _PHONE.subn("[phone]", text)
    return text, mails, calls


def _digits(caption: str) -> int:
    if caption.isascii():
        return len(caption.encode().translate(None, _NO_DIGITS))
    return sum(map(str.isdigit, caption))
