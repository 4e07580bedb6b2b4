"""Sheets for a person to read: pictures in rows with words beside them, and curves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

_TEXT, _FAINT, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)
_RIGHT, _WRONG = (30, 150, 60), (205, 50, 50)
_GAP, _BORDER, _LINE, _WORDS = 6, 3, 15, 230  # pixels


@dataclass(frozen=True)
class Cell:
    """One picture uint8 [3, H, W]; a green or red border says that it is right or wrong."""

    picture: np.ndarray
    right: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Pictures side by side, with words on their left."""

    title: str
    cells: Sequence[Cell]
    notes: Sequence[str] = field(default=())


def draw_sheet(title: str, rows: Sequence[Row], side: int = 64) -> Image.Image:
    """A sheet of rows; small pictures are enlarged by whole factors to about `side` pixels.

    Raises:
        ValueError: if there is nothing to show.
    """
    if not any(row.cells for row in rows):
        raise ValueError(f"sheet {title!r}: there is no picture to show")
    tile = max(_tile_side(cell.picture, side) for row in rows for cell in row.cells)
    noted = any(cell.note for row in rows for cell in row.cells)
    step = (tile + 2 * _BORDER + _GAP, tile + 2 * _BORDER + _GAP + (_LINE if noted else 0))
    columns = max(len(row.cells) for row in rows)
    top = 2 * _LINE + _GAP
    size = (_WORDS + columns * step[0] + _GAP, top + len(rows) * step[1])
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP), title, fill=_TEXT, font=_font(15))
    for number, row in enumerate(rows):
        y = top + number * step[1]
        _write_words(pen, row, y, step[1])
        for column, cell in enumerate(row.cells):
            _draw_cell(sheet, pen, cell, (_WORDS + column * step[0], y), side)
    return sheet


def draw_curves(
    path: Path, title: str, curves: Mapping[str, Mapping[int, float] | Mapping[float, float]],
    x: str, y: str, *, shares: bool = True, doubling: bool = True,
) -> None:  # fmt: skip
    """Curves against numbers, written as a PNG.

    Args:
        shares: the values go from 0 to 1, and all of that is shown.
        doubling: each number is twice the one before, so they are shown at equal distances.
    """
    figure = Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    numbers = sorted({number for points in curves.values() for number in points})
    if doubling:
        axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, labels=[f"{number:g}" for number in numbers])
    if shares:
        axes.set_ylim(0, 1.02)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    # Without its name and version, so that the same curves give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def enlarge(picture: np.ndarray, side: int) -> Image.Image:
    """A picture uint8 [3, H, W], enlarged by the whole factor that comes nearest to `side`."""
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    factor = max(1, round(side / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _tile_side(picture: np.ndarray, side: int) -> int:
    longest = max(picture.shape[1:])
    return int(longest * max(1, round(side / longest)))


def _write_words(pen: ImageDraw.ImageDraw, row: Row, top: int, height: int) -> None:
    lines = [(line, _TEXT) for line in textwrap.wrap(row.title, 34)]
    lines += [(line, _FAINT) for note in row.notes for line in textwrap.wrap(note, 36)]
    for number, (line, colour) in enumerate(lines[: max(1, height // _LINE)]):
        pen.text((_GAP, top + number * _LINE), line, fill=colour, font=_font(12))


def _draw_cell(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], side: int
) -> None:
    image = enlarge(cell.picture, side)
    x, y = corner
    if cell.right is not None:
        far = (x + image.width + 2 * _BORDER - 1, y + image.height + 2 * _BORDER - 1)
        pen.rectangle((x, y, *far), fill=_RIGHT if cell.right else _WRONG)
    sheet.paste(image, (x + _BORDER, y + _BORDER))
    if cell.note:
        pen.text((x, y + image.height + 2 * _BORDER), cell.note, fill=_FAINT, font=_font(11))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
