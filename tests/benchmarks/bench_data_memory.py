"""Peak memory of every data stage at two sizes of data, in parts of one size.

    python tests/benchmarks/bench_data_memory.py [--parts 4 16] [--only STAGE ...]

A part is a file, a part of a table or a shard, as `data_stages.py` makes them. Each stage runs in a
process of its own, with one Dask worker; the figure is the most that this process and all that it
has started (worker, gateway, img2dataset) hold together, looked at every 20 ms. Counted is memory
that has no file behind it, what a fork shares with its parent once (Pss_Anon, Pss_Shmem): pages of
mapped files can be given back at any time. The last column is what each further record of the
input adds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.data_stages import (  # noqa: E402
    STAGES,
    Sizes,
    fresh,
    make_inputs,
    run_stage,
    wanted_pictures,
)

_EVERY = 0.02  # seconds
RECORDS = {
    "warc": "pages", "wat": "pages", "list": "rows", "pairs": "rows", "wanted": "fetched",
    "tars": "pictures", "images": "pictures",
}  # fmt: skip


def peak_of(command: list[str]) -> int:
    """The most bytes that a command and its descendants hold at a time; it must end well."""
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ) as process:
        root, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            peak = max(peak, sum(map(_held, _tree(root))))
            time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return peak


def _tree(root: psutil.Process) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [root.pid, *(one.pid for one in root.children(recursive=True))]
    return []


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    values = (line.split() for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return sum(int(value[1]) << 10 for value in values)


@contextlib.contextmanager
def home_with(kind: str, parts: int, folder: Path, sizes: Sizes) -> Iterator[Path]:
    """A home with inputs of one kind."""
    home = folder / f"{kind}-{parts}"
    if not home.exists():
        make_inputs(kind, home, parts, sizes)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        place = fresh(home, Path(made) / "home")
        with wanted_pictures(place) if kind == "wanted" else contextlib.nullcontext():
            yield place


def measure(name: str, parts: int, folder: Path, sizes: Sizes) -> int:
    """Peak bytes of a stage."""
    with home_with(STAGES[name][0], parts, folder, sizes) as home:
        return peak_of([sys.executable, __file__, "--one", name, "--home", str(home)])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs=2, default=[4, 16])
    parser.add_argument("--only", nargs="*", default=list(STAGES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run_stage(given.one, given.home, workers=1)
        return
    sizes, (few, many) = Sizes(), given.parts
    print(f"| stage | a part | {few} parts | {many} parts | ratio | a record more |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as made:
        for name in given.only:
            size = getattr(sizes, what := RECORDS[STAGES[name][0]])
            less, more = (measure(name, parts, Path(made), sizes) for parts in (few, many))
            each = (more - less) / (size * (many - few))
            print(f"| {name} | {size:,} {what} | {less / 1e6:.0f} MB | {more / 1e6:.0f} MB"
                  f" | {more / less:.2f} | {each:,.0f} B |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
