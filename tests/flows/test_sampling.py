"""`tapir sample PIPELINE` draws with the newest prior and the parts that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.sampling import model_files
from infra.errors import PermanentError
from infra.work import Work
from schemas.artifact import (
    Artifact,
    Candidates,
    ImageTokenizer,
    RankedCandidates,
    Ranker,
    TextTokenizer,
)
from schemas.manifest import Manifest
from tasks.drawing import ModelFiles
from tests.infra.making import PIPELINE, manifest, publish, unit
from tests.tasks.tiny_models import add_prior


class Pipeline:
    """A store in which stages of one pipeline end one after the other."""

    def __init__(self, folder: Path) -> None:
        self.work, self.folder = Work.local(folder), folder
        self.made: dict[str, Manifest] = {}
        self.ended = 1000.0

    def end(self, stage: str, artifact: Artifact, *inputs: str, **changes: Any) -> None:
        """A stage ends, later than all before; its inputs are what the stages named had last."""
        one = manifest(stage, {"output": artifact}, {i: self.made[i] for i in inputs}, **changes)
        self.ended += 10
        run = one.run.model_copy(update={"ended": self.ended})
        self.made[stage] = publish(self.work.store, one.model_copy(update={"run": run}))

    def write(self, stage: str, kind: type[Artifact], text: str, *inputs: str, **more: Any) -> None:
        """As `end`, with a file of this text."""
        made = unit(self.work.store, self.folder, f"{stage}.txt", text)
        self.end(stage, kind(units=(made,)), *inputs, **more)

    def tokenizers(self, version: str) -> None:
        self.write("text_tokenizer", TextTokenizer, f"text {version}")
        self.write("image_tokenizer", ImageTokenizer, f"image {version}")

    def prior(self, width: int) -> None:
        prior = add_prior(self.work, 320, width=width)
        self.end("prior", prior, "text_tokenizer", "image_tokenizer")

    def ranker(self, stage: str, text: str) -> None:
        self.write(stage, Ranker, text, "text_tokenizer")

    def draw(self, version: str, **params: Any) -> None:
        inputs = ("prior", "image_tokenizer", "text_tokenizer")
        params = {"sampling": {}, **params}
        self.write("samples", Candidates, f"drawn {version}", *inputs, params=params)

    def rank(self, version: str) -> None:
        self.write("ranked", RankedCandidates, f"ranked {version}", "samples", "ranker")

    def files(self) -> ModelFiles:
        fetched = self.folder / f"fetched-{self.ended}"
        fetched.mkdir(exist_ok=True)
        return model_files(self.work.store, self.work.environment, PIPELINE, fetched)

    def parts(self) -> list[str]:
        """Which files are drawn with."""
        files = self.files()
        others = (files.image_tokenizer, files.text_tokenizer, files.ranker)
        return [str(self.widths[files.prior.read_bytes()]), *(one.read_text() for one in others)]

    @property
    def widths(self) -> dict[bytes, int]:
        """Widths of priors by their content."""
        units = {w: add_prior(self.work, 320, width=w).units[0] for w in (16, 32)}
        return {self.work.fetch(one).read_bytes(): width for width, one in units.items()}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """One with two rankers, one of which judges what the other has ranked."""
    pipeline = Pipeline(tmp_path)
    pipeline.tokenizers("one")
    pipeline.prior(16)
    pipeline.ranker("ranker", "ranker one")
    pipeline.ranker("evaluator", "evaluator one")
    return pipeline


def test_the_ranker_is_the_one_that_ranked_and_not_the_one_that_ended_last(
    pipeline: Pipeline,
) -> None:
    with pytest.raises(PermanentError, match="several rankers, of the stages evaluator, ranker"):
        pipeline.files()
    pipeline.draw("one")
    pipeline.rank("one")
    assert pipeline.parts() == ["16", "image one", "text one", "ranker one"]
    pipeline.ranker("ranker", "ranker two")  # has not ranked yet
    pipeline.ranker("evaluator", "evaluator two")
    assert pipeline.parts() == ["16", "image one", "text one", "ranker one"]


def test_a_prior_is_decoded_by_the_tokenizer_that_it_was_trained_with(pipeline: Pipeline) -> None:
    pipeline.draw("one")
    pipeline.rank("one")
    pipeline.tokenizers("two")  # as `tapir run --until image_tokenizer` does
    assert pipeline.parts() == ["16", "image one", "text one", "ranker one"]


def test_a_prior_that_nothing_was_drawn_from_has_its_own_tokenizers(pipeline: Pipeline) -> None:
    pipeline.draw("one", sampling={"temperature": 0.5})
    pipeline.rank("one")
    pipeline.write("image_tokenizer", ImageTokenizer, "image two")
    pipeline.prior(32)
    pipeline.write("image_tokenizer", ImageTokenizer, "image three")
    pipeline.ranker("ranker", "ranker two")
    pipeline.ranker("evaluator", "evaluator two")
    # Of rankers, the newest of the stage that ranked before; settings as they were declared last.
    assert pipeline.parts() == ["32", "image two", "text one", "ranker two"]
    sampling = pipeline.files().sampling
    assert sampling is not None
    assert sampling.model_dump()["temperature"] == 0.5


def test_a_ranker_that_reads_other_tokens_than_the_prior_is_refused(pipeline: Pipeline) -> None:
    pipeline.draw("one")
    pipeline.rank("one")
    pipeline.tokenizers("two")
    pipeline.prior(32)
    said = r"shapes/ranker was trained with text_tokenizer \w{12}…, but the prior draws with \w{12}"
    with pytest.raises(PermanentError, match=said):
        pipeline.files()
    pipeline.ranker("ranker", "ranker two")
    assert pipeline.parts() == ["32", "image two", "text two", "ranker two"]


def test_the_newest_prior_is_sampled_from_as_its_own_samples_were(pipeline: Pipeline) -> None:
    pipeline.draw("one", sampling={"temperature": 0.5}, cache_gb=2.5)
    pipeline.rank("one")
    first = pipeline.made["samples"]
    pipeline.prior(32)
    pipeline.draw("two", sampling={"temperature": 0.25}, cache_gb=1.5)
    pipeline.rank("two")
    again = first.model_copy(update={"stage": "older", "run": pipeline.made["ranked"].run})
    publish(pipeline.work.store, again)  # ended later, but of another prior
    files = pipeline.files()
    assert files.sampling is not None
    assert files.sampling.model_dump()["temperature"] == 0.25
    assert files.cache_gb == 1.5


def test_what_is_not_made_yet_is_named(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    with pytest.raises(PermanentError, match="no pipeline 'shapes' has made anything"):
        pipeline.files()
    pipeline.tokenizers("one")
    with pytest.raises(PermanentError, match="shapes has not made its prior, ranker yet"):
        model_files(pipeline.work.store, pipeline.work.environment, PIPELINE, tmp_path)
