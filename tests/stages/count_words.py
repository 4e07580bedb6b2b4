"""A stage for the runner's tests: counts the words of text files, a unit a file."""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from infra.work import ShardWork, Work
from schemas.artifact import ClusterTable, CodeShards
from schemas.stage import Source, StageParams, operational, stage


class CountParams(StageParams):
    """Which files, and from how many letters on a word counts."""

    files: tuple[str, ...]
    minimum: int = 1
    pause: float = operational(0.0)  # seconds a file, for tests that kill in the middle

    def sources(self) -> tuple[str, ...]:
        """The files."""
        return self.files


class Counted(NamedTuple):
    """Counts of the words kept, and of those dropped."""

    kept: CodeShards
    drops: ClusterTable


@stage(retries=1, retry_delay=0.1)
def count_words(params: CountParams, work: Work) -> Counted:
    """Count words by length."""
    mapped = work.map(count_file, work.sources, minimum=params.minimum)
    for step, unit in enumerate(mapped.units("kept")):
        time.sleep(params.pause)
        work.metric("bytes", unit.size, step)
    return Counted(
        CodeShards(units=mapped.units("kept")), ClusterTable(units=mapped.units("drops"))
    )


def count_file(source: Source, shard: ShardWork, minimum: int) -> None:
    """Count the words of one file."""
    words = shard.fetch(source).read_text().split()
    kept = [word for word in words if len(word) >= minimum]
    for output, chosen in (("kept", kept), ("drops", sorted(set(words) - set(kept)))):
        path = shard.scratch / f"{output}.json"
        path.write_text(json.dumps(chosen))
        shard.add(output, path, f"{source.name}-{output}.json", len(chosen))
    shard.count("words", len(words))
