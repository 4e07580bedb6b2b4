"""A stage for the runner's tests: gives on what it gets, so that stages may stand in a ring."""

from __future__ import annotations

from infra.work import Work
from schemas.artifact import CodeShards
from schemas.stage import StageParams, stage


class PassParams(StageParams):
    """None."""


@stage()
def pass_words(words: CodeShards, params: PassParams, work: Work) -> CodeShards:
    """Give the words on."""
    return words
