"""What a person sees of a run: a line a stage with its state, a bar with a rate, the time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.manifest import Manifest

_STYLES = {
    "waiting": "dim", "running": "cyan", "retrying": "yellow",
    "cached": "green", "done": "bold green", "failed": "bold red",
}  # fmt: skip


@dataclass
class _Line:
    state: str = "waiting"
    started: float | None = None
    ended: float | None = None
    done: float = 0
    total: float | None = None
    unit: str = ""
    note: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    def elapsed(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0


class Display:
    """Shows a run; a live table on a terminal, and one line a change of state elsewhere."""

    def __init__(self, name: str, stages: list[str], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._name = name
        self._lines = {stage: _Line() for stage in stages}
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def watch(self, stage: str, kind: str, values: dict[str, Any]) -> None:
        """Take in what happened to a stage (the `Watcher` of `flows.run`)."""
        with self._lock:
            line = self._lines.get(stage)
            if kind == "stopped":
                self.__exit__()  # the process ends before anybody else could
                self.console.print(values["text"], markup=False)
            elif line is None:
                self._say(f"{stage}: {values.get('text', kind)}")
            elif kind == "progress":
                line.done, line.total, line.unit = (
                    values["done"], values["total"], values["unit"]
                )  # fmt: skip
            elif kind == "metrics":
                line.metrics |= {one["name"]: one["value"] for one in values["entries"]}
            elif kind == "message":
                line.note = values["text"]
                self._say(f"{stage}: {line.note}")
            else:
                self._change(stage, line, kind, values)

    def _change(self, stage: str, line: _Line, state: str, values: dict[str, Any]) -> None:
        line.state = state
        if state == "running":
            line.started, line.ended, line.done = time.monotonic(), None, 0
        elif state != "waiting":
            line.ended = time.monotonic() if line.started else None
        manifest = values.get("manifest")
        if isinstance(manifest, Manifest):
            line.note = _summary(manifest)
        line.note = str(values.get("error") or values.get("because") or line.note).split("\n")[0]
        spent = f" ({line.elapsed():.1f} s)" if line.ended else ""
        self._say(f"{stage}: {state}{spent} {line.note}".rstrip())

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            elapsed = time.monotonic() - self._started
            self.console.print(f"[{elapsed:6.1f} s] {text}", markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        with self._lock:
            table = Table.grid(padding=(0, 2))
            for name, line in self._lines.items():
                state = Text(line.state, style=_STYLES.get(line.state, ""))
                spent = f"{line.elapsed():.0f} s" if line.started else ""
                table.add_row(name, state, spent, _bar(line), _detail(line))
            elapsed = time.monotonic() - self._started
            return Group(Text(f"{self._name}  {elapsed:.0f} s", style="bold"), table)


def _bar(line: _Line) -> RenderableType:
    if line.state != "running" or not line.total:
        return ""
    return ProgressBar(total=line.total, completed=line.done, width=24)


def _detail(line: _Line) -> str:
    if line.state != "running" or not line.done:
        return line.note
    rate = line.done / max(line.elapsed(), 1e-6)
    of = f"/{line.total:g}" if line.total else ""
    loss = f"  loss {line.metrics['loss']:.4f}" if "loss" in line.metrics else ""
    return f"{line.done:g}{of} {line.unit}  {rate:.1f}/s{loss}"


def _summary(manifest: Manifest) -> str:
    parts = []
    for name, output in manifest.outputs.items():
        records = sum(unit.records or 0 for unit in output.units)
        count = f"{records:,} records" if records else f"{len(output.units)} files"
        parts.append(f"{name if len(manifest.outputs) > 1 else output.kind} {count}")
    return ", ".join(parts)
