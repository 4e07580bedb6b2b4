"""What a source file says of an image becomes a pair, or a drop with its reason.

Every kind of source file (pages, link metadata, lists of URLs) ends here, so that a pair has the
same columns and the same key wherever it was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from schemas.records import DropReason, drop_record, pair_key
from tasks.sources.optout import forbids
from tasks.sources.urls import UnusableAddress, absolute_url
from tasks.text import one_line

STAGE = "collect_pairs"
MAX_CAPTION = 4096  # characters; longer ones are cut, and are no captions anyway
MAX_ADDRESS = 2048  # characters of an address that was refused, in the table of drops


class Found(NamedTuple):
    """A row of the pair table, or of the drop table."""

    row: dict[str, Any]
    dropped: bool


@dataclass(frozen=True)
class Place:
    """Where images were found, and what is said there of all of them.

    Attributes:
        page_url: absolute; empty if the source does not tell of a page.
        domain: host name of the page, or of the image if there is none.
        base: what the addresses of images are relative to; empty if they are absolute.
        source: name of the source file.
        offset: of the record in it, in bytes; of a list's row, its number.
        signals: opt-out signals (`tasks.sources.optout`).
        license: URLs of the page's license, `;` between them.
    """

    page_url: str
    domain: str
    base: str
    source: str
    offset: int
    signals: tuple[str, ...] = ()
    license: str | None = None

    @cached_property
    def opt_out(self) -> str | None:
        """The signals as a column has them."""
        return "; ".join(self.signals) or None

    @cached_property
    def forbidden(self) -> bool:
        """Whether they forbid use for training."""
        return forbids(self.signals)

    def judge(
        self, addresses: Sequence[str], caption: str, caption_source: str,
        license: str | None = None,
    ) -> Found:  # fmt: skip
        """The pair of an image, or the drop.

        Args:
            addresses: of the image as they are written, best first; the first that can be asked
                for is taken.
            caption: in one line; empty if there is none.
            license: of this image, where it has one of its own.
        """
        url, refused = self._url(addresses)
        row: dict[str, Any] = {
            "page_url": self.page_url, "domain": self.domain, "caption": caption,
            "caption_source": caption_source, "source": self.source, "offset": self.offset,
            "language": None, "opt_out": self.opt_out,
            "license": license or self.license,
        }  # fmt: skip
        if refused is not None:
            row["key"] = pair_key(url, self.page_url, caption)
            row["image_url"] = one_line(url, MAX_ADDRESS)
            return Found(drop_record(row, STAGE, refused.reason, refused.detail), True)
        row["key"], row["image_url"] = pair_key(url, self.page_url, caption), url
        if self.forbidden:
            return Found(drop_record(row, STAGE, DropReason.OPTED_OUT, self.opt_out or ""), True)
        if not caption:
            detail = "nothing describes the image"
            return Found(drop_record(row, STAGE, DropReason.NO_CAPTION, detail), True)
        return Found(row, False)

    def _url(self, addresses: Sequence[str]) -> tuple[str, UnusableAddress | None]:
        """The first usable address made absolute; else the last one as it is, and why not."""
        refused, address = None, ""
        for address in addresses:
            try:
                return absolute_url(address, self.base), None
            except UnusableAddress as error:
                # Without its traceback, which would hold the page until another thread finds it,
                # and a parsed page may only be dropped where it was parsed.
                refused = error.with_traceback(None)
        return address, refused or UnusableAddress(DropReason.BAD_URL, "no address")
