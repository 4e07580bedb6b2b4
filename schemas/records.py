"""Records: the columns of a pair from page to training sample, and why a pair was dropped.

One versioned schema for each table. The version stands in the metadata of every file, so that a
reader can refuse a table that it would misread instead of guessing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pyarrow as pa

RECORD_VERSION = 1
PAIR_VERSION = 2  # 2: the column `license`
VERSION_KEY = b"tapir.schema_version"
NAME_KEY = b"tapir.schema"


class DropReason(StrEnum):
    """Why a pair was dropped; the value is what tables, reports and metrics show."""

    # Seen on the page.
    NO_CAPTION = "no_caption"
    BAD_URL = "bad_url"
    REFUSED_SCHEME = "refused_scheme"
    OPTED_OUT = "opted_out"

    # Seen in the caption.
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    WRONG_LANGUAGE = "wrong_language"
    BOILERPLATE = "boilerplate"
    LOW_ENTROPY = "low_entropy"
    ODD_CHARACTERS = "odd_characters"
    PERSONAL_DATA = "personal_data"
    BLOCKED_WORD = "blocked_word"
    BLOCKED_DOMAIN = "blocked_domain"
    REPEATED_CAPTION = "repeated_caption"

    # Seen when the image was asked for (a scheme or an opt-out may be refused here, too).
    REFUSED_ADDRESS = "refused_address"
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNAVAILABLE = "robots_unavailable"  # cannot be read, which forbids, too
    NOT_FOUND = "not_found"  # 404 and 410
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    RATE_LIMITED = "rate_limited"  # 429 to the end of all passes
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TLS_ERROR = "tls_error"
    DNS_ERROR = "dns_error"
    REDIRECT_LOOP = "redirect_loop"
    CONNECTION_ERROR = "connection_error"

    # Seen in the picture (a truncated one may be noticed only here).
    UNDECODABLE = "undecodable"
    BOMB = "bomb"  # declares more pixels than anybody should decode
    ANIMATED = "animated"
    TOO_SMALL = "too_small"
    ASPECT_RATIO = "aspect_ratio"
    NEAR_BLANK = "near_blank"
    WATERMARK = "watermark"
    NSFW = "nsfw"
    LOW_SIMILARITY = "low_similarity"  # of picture and caption

    # Seen beside other pairs.
    DUPLICATE_URL = "duplicate_url"
    DUPLICATE_CAPTION = "duplicate_caption"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    SEMANTIC_DUPLICATE = "semantic_duplicate"
    EVALUATION_PICTURE = "evaluation_picture"  # the same as one to evaluate on


def _schema(name: str, fields: list[pa.Field], version: int = RECORD_VERSION) -> pa.Schema:
    return pa.schema(fields, metadata={NAME_KEY: name, VERSION_KEY: str(version)})


def _text(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False)


PAIR_SCHEMA = _schema(
    "pair",
    [
        _text("key"),  # `pair_key`
        _text("image_url"),  # absolute, http or https, no fragment
        _text("page_url"),  # empty where a list of URLs names none
        _text("domain"),  # host name of the page, else of the image, lower case
        _text("caption"),  # one line, single spaces, NFC
        _text("caption_source"),  # alt | figcaption | title | og:image:alt | … | list | shard
        _text("source"),  # name of the source file
        # Of the record in that file, in bytes; of a list or a shard, number of the row or sample.
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("language", pa.string()),  # ISO 639-1, once it was identified
        pa.field("opt_out", pa.string()),  # opt-out signals that were seen, `;` between them
        pa.field("license", pa.string()),  # URLs that the page declares, `;` between them
    ],
    PAIR_VERSION,
)

DROP_SCHEMA = _schema(
    "drop",
    [
        _text("key"),
        _text("image_url"),
        _text("page_url"),
        _text("domain"),
        _text("caption"),
        _text("source"),
        _text("stage"),  # name of the stage that dropped it
        _text("reason"),  # `DropReason`
        _text("detail"),  # what was measured, for a person
        pa.field("sha256", pa.string()),  # of the image's bytes, once they were there
    ],
)

FINDING_SCHEMA = _schema(
    "finding",  # what a filter saw in a pair that it did not drop, or would not if it were a trial
    [
        _text("key"),
        _text("filter"),
        pa.field(
            "measure", pa.string()
        ),  # what was measured; a pair may have several of one filter
        pa.field("value", pa.float64()),
        pa.field("reason", pa.string()),  # `DropReason` that the filter has against the pair
        pa.field("detail", pa.string()),  # for a person: the objection, or what was masked
    ],
)

OUTCOME_SCHEMA = _schema(
    "outcome",
    [
        _text("key"),  # of the pair; pairs that share an image URL share its outcome
        _text("image_url"),
        _text("outcome"),  # "ok", or what came of the last attempt
        pa.field("permanent", pa.bool_(), nullable=False),  # no later collection need ask again
    ],
)

CLUSTER_SCHEMA = _schema(
    "cluster",
    [
        _text("cluster"),  # key of the survivor
        _text("key"),
        pa.field("survivor", pa.bool_(), nullable=False),
        # `DropReason` that ties it to its survivor; else survivor | earlier | evaluation
        _text("rule"),
        _text("sha256"),
        pa.field("area", pa.int64(), nullable=False),  # pixels
        # Hamming, to the survivor's hash; -1 where no hashes were compared.
        pa.field("distance", pa.int32(), nullable=False),
        # To the survivor: of thumbnails in levels; else 1 - cosine, or 1 - resemblance of captions.
        pa.field("difference", pa.float64(), nullable=False),
    ],
)


def pair_key(image_url: str, page_url: str, caption: str) -> str:
    """The name of a pair: 32 hex characters, the same on every run and machine."""
    image, page = image_url.encode("utf-8", "replace"), page_url.encode("utf-8", "replace")
    said = caption.encode("utf-8", "replace")
    # Lengths before the texts: no two different triples may share one sequence of bytes.
    framed = b"%b%b%b%b%b%b" % (
        len(image).to_bytes(8, "big"), image, len(page).to_bytes(8, "big"), page,
        len(said).to_bytes(8, "big"), said,
    )  # fmt: skip
    return hashlib.sha256(framed).hexdigest()[:32]


def drop_record(
    pair: Mapping[str, Any], stage: str, reason: DropReason, detail: str, sha256: str | None = None
) -> dict[str, Any]:
    """The row of the drop table for a pair (its row, or the record of its sample)."""
    kept = {name: pair[name] for name in ("key", "image_url", "page_url", "domain", "source")}
    sha256 = sha256 or pair.get("sha256")
    found = {"caption": pair["caption"], "stage": stage, "reason": str(reason), "detail": detail}
    return {**kept, **found, "sha256": sha256}


def require_schema(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Refuse a table that is not of the expected schema and version.

    Raises:
        ValueError: naming the file, what it says it is, and what it should be.
    """
    wanted, given = (_label(schema) for schema in (expected, found))
    if wanted != given or not found.equals(expected):
        raise ValueError(
            f"{where}: holds {given} with columns {found.names}, not {wanted}"
            f" with columns {expected.names}; make it again with this version"
        )


def _label(schema: pa.Schema) -> str:
    metadata = schema.metadata or {}
    name = metadata.get(NAME_KEY, b"a table without a schema name").decode()
    return f"{name} v{metadata.get(VERSION_KEY, b'?').decode()}"
