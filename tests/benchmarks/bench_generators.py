"""Pictures a second of generators, in turns on this machine, each sampled from as declared.

    python tests/benchmarks/bench_generators.py HOME PIPELINE [PIPELINE ...] [--threads 2]

HOME is a folder in which the pipelines have run (`.tapir`). Steps are passes through the network,
one after the other; codes are drawn and decoded to pixels, and nothing is ranked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from flows.sampling import model_files  # noqa: E402
from infra.environment import Environment  # noqa: E402
from infra.store import Store  # noqa: E402
from model_zoo.weights import read_header  # noqa: E402
from tasks.painting import Painter, candidate_seeds  # noqa: E402

PROMPTS = [f"a large {colour} {shape} on white" for colour in ("red", "blue", "green", "cyan")
           for shape in ("circle", "square", "cross", "triangle")]  # fmt: skip
SHAPES = ((1, 1), (1, 16), (1, 64), (16, 16))  # prompts, candidates of each
RUNS = 5


@dataclass
class Drawer:
    """A pipeline's models, and how many passes they took."""

    name: str
    painter: Painter
    sampling: Any
    passes: int = 0

    def draw(self, prompts: int, candidates: int) -> float:
        """Seconds for so many prompts with so many candidates each."""
        self.passes = 0
        chosen = PROMPTS[:prompts]
        seeds = candidate_seeds(0, chosen, candidates)
        start = time.perf_counter()
        self.painter.paint(chosen, seeds, self.sampling)
        return time.perf_counter() - start

    def count(self, *_: Any) -> None:
        """Called after each pass."""
        self.passes += 1


def main() -> None:
    """Print a table of all pipelines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("pipelines", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads; medians of {RUNS} runs")
    environment = Environment(home=options.home.resolve())
    store = Store(environment.store_url)
    with tempfile.TemporaryDirectory() as folder:
        drawers = [_drawer(name, store, environment, Path(folder)) for name in options.pipelines]
    for shape in SHAPES:
        times: dict[str, list[float]] = {drawer.name: [] for drawer in drawers}
        for _ in range(RUNS + 1):
            for drawer in drawers:
                times[drawer.name].append(drawer.draw(*shape))
        for drawer in drawers:
            seconds = statistics.median(times[drawer.name][1:])  # the first warms up
            rate, (prompts, candidates) = shape[0] * shape[1] / seconds, shape
            print(
                f"{prompts:3} prompts x {candidates:3}  {drawer.name:14} {drawer.passes:3} steps"
                f" {seconds * 1e3:8.0f} ms {rate:8.1f} pictures/s"
            )


def _drawer(name: str, store: Store, environment: Environment, folder: Path) -> Drawer:
    (folder / name).mkdir()
    files = model_files(store, environment, name, folder / name)
    painter = Painter(files.prior, files.image_tokenizer, files.text_tokenizer)
    drawer = Drawer(name, painter, files.sampling)
    network: Any = painter.prior.network
    network.norm.register_forward_hook(drawer.count)  # the last norm: every pass ends in it
    parameters = sum(parameter.numel() for parameter in network.parameters())
    kind, _ = read_header(files.prior)
    print(f"{name}: {kind}, {parameters:,} parameters, {files.sampling}")
    return drawer


if __name__ == "__main__":
    main()
