"""Records: keys that never change, schemas that say what they are."""

import pyarrow as pa
import pytest

from schemas.records import (
    DROP_SCHEMA,
    PAIR_SCHEMA,
    DropReason,
    drop_record,
    pair_key,
    require_schema,
)


def test_a_key_is_the_same_for_ever():
    found = pair_key("http://a.test/1.png", "http://a.test/", "a red circle – ünïcode")

    assert found == "ce8067883593d49d84bcb0228e8b268a"


def test_no_two_triples_share_their_text():
    assert pair_key("ab", "c", "") != pair_key("a", "bc", "")
    assert pair_key("a", "b\x00c", "") != pair_key("a", "b", "\x00c")


def test_a_key_of_text_that_is_no_unicode_is_a_key():
    assert len(pair_key("http://a.test/\ud800", "", "")) == 32


def test_a_table_of_another_version_is_refused():
    older = PAIR_SCHEMA.with_metadata({b"tapir.schema": b"pair", b"tapir.schema_version": b"0"})

    with pytest.raises(ValueError, match=r"x\.parquet: holds pair v0 .* not pair v2"):
        require_schema(older, PAIR_SCHEMA, "x.parquet")


def test_a_table_with_other_columns_is_refused():
    fewer = pa.schema(list(PAIR_SCHEMA)[:-1], metadata=PAIR_SCHEMA.metadata)

    with pytest.raises(ValueError, match="with columns"):
        require_schema(fewer, PAIR_SCHEMA, "x.parquet")
    require_schema(PAIR_SCHEMA, PAIR_SCHEMA, "x.parquet")


def test_a_drop_has_every_column_of_its_schema():
    pair = {
        "key": "k", "image_url": "i", "page_url": "p", "domain": "d", "caption": "c",
        "source": "s", "offset": 3, "sha256": "5",
    }  # fmt: skip
    row = drop_record(pair, "filter_images", DropReason.TOO_SMALL, "1x1")

    assert set(row) == set(DROP_SCHEMA.names)
    assert (row["reason"], row["sha256"]) == ("too_small", "5")
