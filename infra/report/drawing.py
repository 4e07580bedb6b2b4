"""Charts of a report as inline SVG: distributions, curves of metrics, the graph of lineage."""

from __future__ import annotations

import html
from collections.abc import Sequence

from infra.report.content import Bars, Curve, Node

_WIDTH, _HEIGHT, _PAD = 280, 110, 8
_BOX = (150, 40)
_STEP = (185, 58)
_LABEL, _LINE = 110, 22  # of a bar: width of its name, height


def draw_bars(bars: Bars) -> str:
    """A distribution: for each class a bar, above it a lighter one of what there was before.

    Both are drawn as shares of their own series, so that their shapes compare.
    """
    all_before = max(1, sum(before for _, before, _ in bars.rows))
    all_after = max(1, sum(after for _, _, after in bars.rows))
    shares = [(row[0], row[1] / all_before, row[2] / all_after, row) for row in bars.rows]
    widest = max((max(before, after) for _, before, after, _ in shares), default=0) or 1
    room = _WIDTH - _LABEL - 60
    parts = []
    for number, (name, before, after, row) in enumerate(shares):
        y = number * _LINE
        short = name if len(name) <= 18 else f"{name[:17]}…"
        parts.append(
            f"<title>{html.escape(name)}: {row[2]:,}</title>"
            f"<text x='{_LABEL - 6}' y='{y + 14}' text-anchor='end'>{html.escape(short)}</text>"
            f"<rect class='before' x='{_LABEL}' y='{y + 2}' width='{room * before / widest:.1f}'"
            " height='5'/>"
            f"<rect x='{_LABEL}' y='{y + 7}' width='{room * after / widest:.1f}' height='9'/>"
            f"<text x='{_LABEL + 4 + room * max(before, after) / widest:.1f}' y='{y + 14}'>"
            f"{row[2]:,}</text>"
        )
    said = ", ".join(filter(None, [bars.names[0] and f"light: {bars.names[0]}", bars.names[1]]))
    title = html.escape(bars.title, quote=True)
    groups = "".join(f"<g>{part}</g>" for part in parts)
    return (
        f"<figure><svg class='bars' viewBox='0 0 {_WIDTH} {len(shares) * _LINE + 4}' role='img'"
        f" aria-label='{title}'>{groups}</svg><figcaption>{title}<br>"
        f"<small>{html.escape(said)}</small></figcaption></figure>"
    )


def draw_curve(curve: Curve) -> str:
    """A metric over its steps, with the first, last and extreme values in words."""
    steps = [step for step, _ in curve.points]
    values = [value for _, value in curve.points]
    low, high = min(values), max(values)
    across = (_WIDTH - 2 * _PAD) / max(1, steps[-1] - steps[0])
    up = (_HEIGHT - 2 * _PAD) / ((high - low) or 1.0)
    points = " ".join(
        f"{_PAD + (step - steps[0]) * across:.1f},{_HEIGHT - _PAD - (value - low) * up:.1f}"
        for step, value in curve.points
    )
    title = f"{curve.stage}: {curve.name}"
    words = f"{values[0]:.4g} → {values[-1]:.4g} (from {low:.4g} to {high:.4g}), {steps[-1]} steps"
    return (
        f"<figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='"
        f"{html.escape(title, quote=True)}'><polyline points='{points}'/></svg>"
        f"<figcaption>{html.escape(title)}<br><small>{html.escape(words)}</small></figcaption>"
        "</figure>"
    )


def draw_graph(nodes: Sequence[Node]) -> str:
    """The stages from sources (left) to results (right), each with the start of its digest."""
    depth: dict[str, int] = {}
    for node in nodes:  # they come in an order in which they can run
        depth[node.name] = 1 + max((depth[name] for name in node.inputs), default=-1)
    rows: dict[int, int] = {}
    place = {}
    for node in nodes:
        column = depth[node.name]
        place[node.name] = (column * _STEP[0] + 4, rows.get(column, 0) * _STEP[1] + 4)
        rows[column] = rows.get(column, 0) + 1
    width = (max(depth.values(), default=0) + 1) * _STEP[0]
    height = max(rows.values(), default=0) * _STEP[1] + 8
    edges = "".join(_edge(place[name], place[node.name]) for node in nodes for name in node.inputs)
    boxes = "".join(_box(node, place[node.name]) for node in nodes)
    return f"<svg class='graph' viewBox='0 0 {width} {height}' width='{width}'>{edges}{boxes}</svg>"


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + _BOX[0], start[1] + _BOX[1] / 2
    x2, y2 = end[0], end[1] + _BOX[1] / 2
    bend = max(20.0, (x2 - x) / 2)
    return f"<path d='M{x},{y} C{x + bend},{y} {x2 - bend},{y2} {x2},{y2}'/>"


def _box(node: Node, corner: tuple[int, int]) -> str:
    x, y = corner
    return (
        f"<g><rect x='{x}' y='{y}' width='{_BOX[0]}' height='{_BOX[1]}' rx='6'/>"
        f"<text x='{x + 8}' y='{y + 17}'>{html.escape(node.name)}</text>"
        f"<text class='small' x='{x + 8}' y='{y + 32}'>{html.escape(node.digest)}</text></g>"
    )
