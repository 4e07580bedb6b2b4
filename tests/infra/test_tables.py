"""Tables: rows in, the same rows out, the same bytes from the same rows."""

import pytest

from infra.tables import read_columns, read_table, write_table
from schemas.records import DROP_SCHEMA, PAIR_SCHEMA

ROWS = [
    {
        "key": f"{n:032x}", "image_url": "http://a.test/1", "page_url": "http://a.test/",
        "domain": "a.test", "caption": "ein Käfer", "caption_source": "alt", "source": "x.warc.gz",
        "offset": n, "language": None, "opt_out": None, "license": None,
    }
    for n in range(20_000)
]  # fmt: skip


def test_rows_come_back_in_order(tmp_path):
    assert write_table(tmp_path / "x.parquet", iter(ROWS), PAIR_SCHEMA) == len(ROWS)

    assert list(read_table(tmp_path / "x.parquet", PAIR_SCHEMA)) == ROWS


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("x", "y"):
        write_table(tmp_path / name, ROWS[:100], PAIR_SCHEMA)

    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_some_columns_can_be_read(tmp_path):
    write_table(tmp_path / "x", ROWS[:3], PAIR_SCHEMA)

    found = read_columns(tmp_path / "x", PAIR_SCHEMA, ["offset"])
    assert found.to_pydict() == {"offset": [0, 1, 2]}


def test_another_table_is_refused_with_its_name(tmp_path):
    write_table(tmp_path / "pairs.parquet", ROWS[:3], PAIR_SCHEMA)

    with pytest.raises(ValueError, match=r"pairs\.parquet: holds pair v2"):
        list(read_table(tmp_path / "pairs.parquet", DROP_SCHEMA))


def test_a_row_without_a_needed_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="null"):
        write_table(tmp_path / "x", [{"key": "k"}], PAIR_SCHEMA)
