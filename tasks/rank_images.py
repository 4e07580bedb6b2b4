"""Rank candidates: a contrastive model scores how well each picture matches its prompt."""

from __future__ import annotations

from infra.work import ShardWork, Work
from schemas.artifact import Candidates, RankedCandidates, Ranker, TextTokenizer, Unit
from schemas.stage import stage
from tasks.candidates import read_candidates
from tasks.devices import steady_threads
from tasks.judging import Judge
from tasks.networks import NetworkParams


class RankParams(NetworkParams):
    """Which networks may rank."""

    networks: tuple[str, ...] = ("clip",)


@stage(retries=2, cores=2, memory_gb=2.0, versions=("torch", "tokenizers", "open-clip-torch"))
def rank_images(
    candidates: Candidates, ranker: Ranker, text_tokenizer: TextTokenizer,
    params: RankParams, work: Work,
) -> RankedCandidates:  # fmt: skip
    """Score all candidates and sort each prompt's, best first."""
    params.check(work.fetch(ranker.units[0]))
    mapped = work.map(
        rank_unit, candidates.units, ranker=ranker.units[0],
        text_tokenizer=text_tokenizer.units[0], digest=ranker.digest,
    )  # fmt: skip
    return RankedCandidates(units=mapped.units("ranked"))


def rank_unit(
    unit: Unit, shard: ShardWork, *, ranker: Unit, text_tokenizer: Unit, digest: str
) -> None:
    """Rank the candidates of one file; `digest` is the ranker's, kept with the scores."""
    drawn = read_candidates(shard.fetch(unit))
    with steady_threads():
        judge = Judge(shard.fetch(ranker), shard.fetch(text_tokenizer))
        scores = judge.scores([prompt.text for prompt in drawn.prompts], drawn.pictures)
    name = unit.name.replace("candidates", "ranked")
    path = shard.scratch / name
    drawn.ranked(scores, digest).write(path)
    shard.add("ranked", path, name, records=scores.size)
