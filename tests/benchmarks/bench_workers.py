"""Stages that need processor time, with one Dask worker and with two, and what the machine allows.

    python tests/benchmarks/bench_workers.py [--seconds 20] [--rounds 2] [--only STAGE ...]

Each stage gets as many parts (`data_stages.py`) as keep one worker busy for at least `--seconds`.
Runs take turns, each on a fresh home: a plain loop in one process and in two at a time (the
ceiling: two cores that share a core's units, or that others use as well, do less than twice the
work of one), then the stage with one worker, then with two. Times are of the whole stage, what runs
outside the workers included, but not of the cluster's start. Given is the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.data_stages import STAGES, Sizes, fresh, make_inputs, run_stage  # noqa: E402

BOUND = ("collect_pairs (WARC)", "collect_pairs (WAT)", "filter_captions", "filter_images",
         "dedup_images")  # fmt: skip
_TRIED = 4  # parts by whose time the number of parts is chosen
_LOOP = "import sys\nn = 0\nfor i in range(int(sys.argv[1])): n += i * i % 7"
_TURNS = 60_000_000  # of the loop, some seconds


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def ceiling() -> float:
    """How much more two processes do than one: plain loops that share nothing."""
    seconds = []
    for count in (1, 2):
        start = time.monotonic()
        running = [subprocess.Popen([sys.executable, "-c", _LOOP, str(_TURNS)])
                   for _ in range(count)]  # fmt: skip
        for one in running:
            one.wait()
        seconds.append(time.monotonic() - start)
    return 2 * seconds[0] / seconds[1]


def seconds_of(name: str, home: Path, workers: int) -> float:
    """Seconds of a stage on a fresh home, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=home.parent) as made:
        place = fresh(home, Path(made) / "home")
        options = ["--one", name, "--home", str(place), "--workers", str(workers)]
        done = subprocess.run(
            [sys.executable, __file__, *options],
            env=_environment(), check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return float(done.stdout.split()[-1])


def measure(name: str, folder: Path, wanted: float, rounds: int) -> str:
    """A row of the table."""
    kind, sizes = STAGES[name][0], Sizes()
    tried = folder / f"{kind}-tried"
    if not tried.exists():
        make_inputs(kind, tried, _TRIED, sizes)
    parts = max(_TRIED, 2 * round(wanted * 1.2 * _TRIED / seconds_of(name, tried, 1) / 2))
    home = folder / f"{kind}-{parts}"
    if not home.exists():
        make_inputs(kind, home, parts, sizes)
    found = [(ceiling(), seconds_of(name, home, 1), seconds_of(name, home, 2))
             for _ in range(rounds)]  # fmt: skip
    allowed, one, two = (median(values) for values in zip(*found, strict=True))
    ratio = median(single / double for _, single, double in found)
    return (f"| {name} | {parts} | {one:.1f} s | {two:.1f} s | {ratio:.2f} | {allowed:.2f}"
            f" | {ratio / allowed:.0%} |")  # fmt: skip


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=BOUND)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(run_stage(given.one, given.home, given.workers))
        return
    print("| stage | parts | one worker | two | ratio | plain loops | of that |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as made:
        for name in given.only:
            print(measure(name, Path(made), given.seconds, given.rounds), flush=True)


if __name__ == "__main__":
    main()
