"""A terminal shows rows as they are drawn; a pipe or a file is left alone."""

from __future__ import annotations

import io

from rich.console import Console

from flows.row_bar import row_bar


def test_rows_are_counted_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with row_bar(console) as progress:
        assert progress is not None
        for rows in range(9):
            progress(rows, 8)
    said = console.file.getvalue()
    assert "8/8" in said
    assert "rows" in said


def test_elsewhere_nothing_is_written() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with row_bar(console) as progress:
        assert progress is None
    assert console.file.getvalue() == ""
