"""What can come of asking for a URL, and the record of one attempt."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What came of one attempt at a URL."""

    OK = "ok"
    BAD_URL = "bad_url"
    REFUSED_SCHEME = "refused_scheme"
    REFUSED_ADDRESS = "refused_address"
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNAVAILABLE = "robots_unavailable"  # cannot be read, which forbids until it can
    OPTED_OUT = "opted_out"
    NOT_FOUND = "not_found"  # 404 and 410
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    RATE_LIMITED = "rate_limited"  # 429, or 503 with Retry-After
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"  # fewer bytes than declared
    TLS_ERROR = "tls_error"
    DNS_ERROR = "dns_error"
    REDIRECT_LOOP = "redirect_loop"
    CONNECTION_ERROR = "connection_error"


TRANSIENT = frozenset(
    {
        Outcome.ROBOTS_UNAVAILABLE,
        Outcome.HTTP_5XX,
        Outcome.RATE_LIMITED,
        Outcome.TIMEOUT,
        Outcome.TRUNCATED,
        Outcome.DNS_ERROR,
        Outcome.CONNECTION_ERROR,
    }
)


# Refused on this machine, before any host is asked.
_UNASKED = frozenset({Outcome.BAD_URL, Outcome.REFUSED_SCHEME, Outcome.REFUSED_ADDRESS})
_SILENCE = frozenset({Outcome.DNS_ERROR, Outcome.CONNECTION_ERROR, Outcome.TIMEOUT})
# The client library keeps bytes of a header that are no UTF-8 as surrogates, which none can hold.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Text that others wrote, and how many characters of it are kept.
_BOUNDS = {
    "content_type": 200,
    "final_url": 8192,
    "address": 200,
    "signals": 1000,
    "detail": 500,
    "error": 1000,
}


class Refused(Exception):
    """An attempt ended without an image.

    Attributes:
        detail: for a person; the same whenever the same site answers the same way.
        error: the error's own words, which may hold ports and times.
        permanent: whether asking again is pointless; by default as the outcome's kind is.
        wait: seconds for which the host wants to be left alone.
    """

    def __init__(
        self,
        outcome: Outcome,
        detail: str = "",
        *,
        error: str = "",
        permanent: bool | None = None,
        wait: float | None = None,
    ) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail
        self.error = error
        self.permanent = outcome not in TRANSIENT if permanent is None else permanent
        self.wait = wait

    def copy(self) -> Refused:
        """The same without its traceback, which holds on to all that was at work."""
        return Refused(
            self.outcome,
            self.detail,
            error=self.error,
            permanent=self.permanent,
            wait=self.wait,
        )


class Deferred(Exception):
    """Nothing was asked: the host wants to be left alone for longer than is worth waiting here."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"the host wants to be left alone for {wait:.1f} s")
        self.wait = wait


@dataclass
class Attempt:
    """One attempt at a URL, a row of the journal; filled in as it goes on.

    Attributes:
        key: `url_key` of the URL.
        attempt: how many attempts there were, with this one; a deferred one adds none, one that is
            given up for its host's pauses adds all that were left, and 0 says that those before do
            not count (`JournalReader.reopen`).
        permanent: no further attempt can change the outcome.
        requested: a request for the image itself, not only for robots.txt, left the machine.
        size, sha256: of the body, if all of it came.
        final_url: where the redirects led; address: the peer's, the last one connected to.
        signals: opt-out headers that were there, decisive or not.
        not_before, started: seconds since the epoch; elapsed: seconds.
    """

    key: str
    url: str
    attempt: int
    outcome: Outcome = Outcome.CONNECTION_ERROR
    permanent: bool = False
    requested: bool = False
    status: int | None = None
    size: int | None = None
    sha256: str | None = None
    content_type: str = ""
    final_url: str = ""
    address: str = ""
    signals: str = ""
    detail: str = ""
    error: str = ""
    not_before: float | None = None
    started: float = 0.0
    elapsed: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the image is there."""
        return self.outcome is Outcome.OK

    @property
    def tried(self) -> bool:
        """Whether a host was to be asked at all."""
        return self.outcome not in _UNASKED

    @property
    def unreachable(self) -> bool:
        """Whether the host gave no answer, or would not even show its robots.txt."""
        silent = self.outcome in _SILENCE and self.status is None
        return silent or self.outcome is Outcome.ROBOTS_UNAVAILABLE

    @property
    def deferred(self) -> bool:
        """Whether a host was not asked because it wants a pause; one before it may have been."""
        limited = self.outcome is Outcome.RATE_LIMITED and self.not_before is not None
        return limited and (self.status or 0) < 400

    def make_storable(self) -> None:
        """Replace characters that cannot be stored, and cut text that is too long."""
        for name, longest in _BOUNDS.items():
            text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", getattr(self, name))
            setattr(self, name, text[:longest])

    def is_final(self, attempts: int) -> bool:
        """Whether the URL is never to be asked for again when `attempts` are allowed."""
        return self.permanent or self.attempt >= attempts


COLUMNS = tuple(field.name for field in dataclasses.fields(Attempt))


def url_key(url: str) -> str:
    """The name of a URL: 32 hex characters. Pairs that share an image URL share its fetch."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
