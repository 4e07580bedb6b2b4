"""The sheets of an evaluation: candidates by group, reconstructions, what ranking gains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.candidates import PromptCandidates
from tasks.evaluation.checked import RIGHT
from tasks.evaluation.findings import Findings
from tasks.evaluation.originals import Reconstructed
from tasks.sheets import Cell, Row, draw_curves, draw_sheet

_ROWS = 40  # prompts on a sheet; more would be no sheet that anybody looks at
_PAIRS = 8  # originals in a row


def draw_sheets(
    findings: Findings, table: Sequence[dict[str, Any]], candidates: int, folder: Path
) -> list[Path]:
    """Draw all sheets into a folder."""
    rows = {(row["group"], row["prompt"]): row for row in table}
    paths = []
    for group, prompts in findings.groups.items():
        shown = [_row(one, rows[group, one.prompt.text], candidates) for one in prompts[:_ROWS]]
        paths.append(folder / f"candidates-{_word(group)}.png")
        draw_sheet(f"{group.replace('_', ' ')}: best-ranked first", shown).save(paths[-1])
    paths.append(folder / "reconstructions.png")
    draw_originals(findings.originals).save(paths[-1])
    return [*paths, *_draw_curves(findings, folder)]


def _draw_curves(findings: Findings, folder: Path) -> list[Path]:
    title, x = "the first-ranked of n candidates", "candidates n"
    paths = [folder / "score_of_n.png"]
    draw_curves(paths[-1], title, findings.scores, x, "the ranker's own score", shares=False)
    if findings.curves:
        paths.append(folder / "best_of_n.png")
        draw_curves(paths[-1], title, findings.curves, x, "share of prompts")
    distances = findings.compared.curves
    for name in dict.fromkeys(curve.split("/")[1] for curve in distances):
        # Features of different networks have no scale in common.
        chosen = {curve: points for curve, points in distances.items() if f"/{name}" in curve}
        if all(len(points) > 1 for points in chosen.values()):
            paths.append(folder / f"distance_by_blur-{name}.png")
            draw_curves(
                paths[-1], "distance of drawn (fid) and of rebuilt (rfid) from real pictures",
                chosen, "Gaussian blur of both, in pixels", "Fréchet distance",
                shares=False, doubling=False,
            )  # fmt: skip
    return paths


def _row(one: PromptCandidates, row: dict[str, Any], candidates: int) -> Row:
    cells = []
    for place, picture in enumerate(one.pictures[:candidates]):
        right, note = None, f"{one.scores[place]:.2f}"
        if row.get("verdicts"):
            right = bool(row["verdicts"][place][RIGHT])
        if "own_caption_ranks" in row:
            rank = row["own_caption_ranks"][place]
            right = rank == 1 if right is None else right
            note += f" #{rank}"
        cells.append(Cell(picture, right, note))
    nearest = f"nearest in training ({row['nearest_distance']}): {row['nearest_caption']}"
    return Row(one.prompt.text, cells, [nearest])


def draw_originals(originals: Reconstructed, count: int = 32) -> Any:
    """Originals, and below each its reconstruction."""
    rows = []
    for start in range(0, min(count, len(originals.originals)), _PAIRS):
        part = slice(start, start + _PAIRS)
        rows.append(Row("originals", [Cell(one) for one in originals.originals[part]]))
        rows.append(Row("reconstructions", [Cell(one) for one in originals.pictures[part]]))
    return draw_sheet("training pictures, and what their codes keep of them", rows)


def _word(group: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", group)
