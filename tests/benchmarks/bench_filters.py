"""What each text filter costs on realistic captions, and all of them together.

    python tests/benchmarks/bench_filters.py [--pairs 200000] [--runs 3]

Captions are made from the hand-written lists of the tests: of a hundred, 50 are good ones (also
joined to longer ones), 25 boilerplate, 20 of other languages and 5 with addresses or numbers, on
500 domains. Times are of processor and thread, so other work on the machine counts little; a filter
is asked about the pairs that those before it have left, as in the stage. Beside them, as reference:
py3langid asked about each caption by itself, which alone was most of the cost.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: E402

from infra.tables import write_table  # noqa: E402
from infra.work import ShardWork, Work  # noqa: E402
from schemas.records import PAIR_SCHEMA  # noqa: E402
from tasks.filter_captions import filter_part, judge, judge_many  # noqa: E402
from tasks.filters import build_filter, prepare_filters  # noqa: E402
from tests.tasks.pair_rows import pair_row  # noqa: E402

SPECS: tuple[dict[str, dict[str, Any]], ...] = (
    {"blocked_domains": {"domains": [f"blocked{n}.test" for n in range(1000)]}},
    {"caption_length": {}},
    {"character_classes": {}},
    {"caption_entropy": {}},
    {"blocked_words": {"words": [f"word{n}" for n in range(1000)]}},
    {"repeated_caption": {"images": 2}},
    {"language": {}},
    {"boilerplate": {}},
    {"personal_data": {}},
)
LISTS = ROOT / "tests/tasks/filters"
PERSONAL = ("mail me at jane{}@example.com", "call 555-234-{:04d}", "phone: 01234 56{:04d}")


def make_captions(count: int) -> list[str]:
    """Captions in a fixed random order."""
    rng = random.Random(0)
    good, boilerplate = (
        (LISTS / f"{name}.txt").read_text().splitlines() for name in ("good", "boilerplate")
    )
    foreign = [line.split("\t")[1] for line in (LISTS / "foreign.txt").read_text().splitlines()]

    def one() -> str:
        kind = rng.random()
        if kind < 0.5:
            return ", ".join(rng.sample(good, rng.choice((1, 1, 2, 3))))
        if kind < 0.75:
            return rng.choice(boilerplate)
        if kind < 0.95:
            return " ".join(rng.sample(foreign, rng.choice((1, 1, 2))))
        return f"{rng.choice(good)}, {rng.choice(PERSONAL).format(rng.randrange(10_000))}"

    return [one() for _ in range(count)]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this thread, and what the function gave."""
    start = time.thread_time()
    result = function()
    return time.thread_time() - start, result


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    rows = [
        pair_row(caption, domain=f"{n % 500}.test", image_url=f"http://{n % 500}.test/{n}")
        for n, caption in enumerate(make_captions(options.pairs))
    ]
    length = sum(len(row["caption"]) for row in rows) / len(rows)
    print(f"{len(rows):,} pairs, {length:.0f} characters a caption on average")
    with tempfile.TemporaryDirectory() as folder:
        work = Work.local(Path(folder))
        path = work.scratch / "pairs.parquet"
        part = work.add(path, path.name, write_table(path, rows, PAIR_SCHEMA))
        preparing, prepared = timed(lambda: prepare_filters(SPECS, (part,), work))
        files = {place: work.fetch(units[0]) for place, units in prepared.items()}
        filters = [build_filter(spec, files.get(place)) for place, spec in enumerate(SPECS)]
        best = min(
            (each(filters, [dict(row) for row in rows]) for _ in range(options.runs)),
            key=lambda costs: sum(cost for cost, _ in costs),
        )
        together = min(
            timed(lambda: judge_all(filters, [dict(row) for row in rows]))[0]
            for _ in range(options.runs)
        )
        copying = timed(lambda: [dict(row) for row in rows])[0]
        stage, _ = timed(
            lambda: filter_part(
                part, ShardWork(work.store, work.scratch), SPECS[:5] + SPECS[6:], planned=False
            )
        )
    for spec, (cost, asked) in zip(SPECS, best, strict=True):
        name = next(iter(spec))
        print(f"  {name:18} {1e6 * cost / asked:6.1f} µs a pair asked, {asked:8,} asked")
    print(f"  repeated_caption's count beforehand: {1e6 * preparing / len(rows):.1f} µs a pair")
    print(f"  all together       {len(rows) / (together - copying):8,.0f} pairs/s a core")
    print(f"  with that count    {len(rows) / (preparing + together - copying):8,.0f}")
    print(f"  the stage without repeated_caption, parquet in and out: {len(rows) / stage:,.0f}")
    print(f"  py3langid, one by one: {reference(rows):.1f} µs a pair")


def each(filters: list[Any], rows: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """Seconds and pairs asked of each filter, each seeing what those before it accept."""
    costs = []
    for one in filters:
        seconds, verdicts = timed(partial(judge_many, one, rows))
        costs.append((seconds, len(rows)))
        rows = [
            row for row, verdict in zip(rows, verdicts, strict=True)
            if getattr(verdict, "reason", None) is None
        ]  # fmt: skip
    return costs


def judge_all(filters: list[Any], rows: list[dict[str, Any]]) -> None:
    """As the stage does it, in batches."""
    named = {next(iter(spec)): one for spec, one in zip(SPECS, filters, strict=True)}
    for start in range(0, len(rows), 8192):
        judge(rows[start : start + 8192], named)


def reference(rows: list[dict[str, Any]]) -> float:
    """Microseconds that py3langid takes for a caption by itself."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    captions = [row["caption"].lower() for row in rows[:5000]]
    seconds, _ = timed(lambda: [identifier.rank(caption) for caption in captions])
    return 1e6 * seconds / len(captions)


if __name__ == "__main__":
    main()
