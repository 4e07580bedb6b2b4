"""Rows of the pair table, for tests of the stages that read it."""

from __future__ import annotations

from typing import Any

from infra.tables import write_table
from schemas.artifact import PairTable
from schemas.records import PAIR_SCHEMA, pair_key


def pair_row(caption: str, **columns: Any) -> dict[str, Any]:
    """A pair as it is collected; columns that are not given have some value."""
    row = {
        "image_url": "http://a.test/image", "page_url": "http://a.test/", "domain": "a.test",
        "caption": caption, "caption_source": "alt", "source": "x.warc.gz", "offset": 0, **columns,
    }  # fmt: skip
    return {"key": pair_key(row["image_url"], row["page_url"], caption), **row}


def add_pairs(work, rows, parts=1) -> PairTable:
    """Split rows over parts of a table, and store them."""
    units = []
    for number in range(parts):
        path = work.scratch / f"pairs-{number:05d}.parquet"
        units.append(work.add(path, path.name, write_table(path, rows[number::parts], PAIR_SCHEMA)))
    return PairTable(units=tuple(units))
