"""A stage for the runner's tests: fails as it is told to."""

from __future__ import annotations

from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import CodeShards
from schemas.stage import StageParams, stage


class FailParams(StageParams):
    """How often it fails before it succeeds; for good if `permanent`."""

    times: int = 1
    permanent: bool = False


@stage(retries=2, retry_delay=0.1)
def fail_words(words: CodeShards, params: FailParams, work: Work) -> CodeShards:
    """Fail some times, counted in the state that attempts hand on."""
    counter = work.state / "failures"
    failures = int(counter.read_text()) if counter.exists() else 0
    if params.permanent:
        raise PermanentError("nothing is left to train on")
    if failures < params.times:
        counter.write_text(str(failures + 1))
        raise RuntimeError(f"failure {failures + 1}")
    return words
