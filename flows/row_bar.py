"""The bar of a drawing: rows of codes, on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def row_bar(console: Console | None = None) -> Iterator[Callable[[int, int], None] | None]:
    """What is to be told rows drawn and rows in all; None where nobody would see a bar."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows, of: bar.update(task, completed=rows, total=of)
