"""Render a report's content as one HTML file that loads nothing from anywhere.

Captions and URLs come from the web: everything is escaped by the template engine, and pictures are
small PNGs or JPEGs that were decoded and written anew.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from infra.report.content import Content
from infra.report.drawing import draw_bars, draw_curve, draw_graph


def render(content: Content) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data"] = _data
    return environment.get_template("page.html.j2").render(
        content=content,
        curves=[Markup(draw_curve(curve)) for curve in content.curves if curve.points],
        bars=[Markup(draw_bars(bars)) for bars in content.bars],
        graph=Markup(draw_graph(content.graph)),
        widest=max((row.kept + row.dropped for row in content.funnel), default=1) or 1,
    )


def _data(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
