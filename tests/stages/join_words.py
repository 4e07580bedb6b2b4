"""A stage for the runner's tests: joins the words that another stage counted."""

from __future__ import annotations

import json

from infra.work import Work
from schemas.artifact import CodeShards, TextTokenizer
from schemas.stage import StageParams, stage


class JoinParams(StageParams):
    """What stands between two words."""

    separator: str = " "


@stage(retries=0)
def join_words(words: CodeShards, params: JoinParams, work: Work) -> TextTokenizer:
    """Join all words, in the order of the files."""
    lists = [json.loads(work.fetch(unit).read_text()) for unit in words.units]
    path = work.scratch / "joined.txt"
    path.write_text(params.separator.join(word for words in lists for word in words))
    return TextTokenizer(units=(work.add(path, "joined.txt", 1),))
