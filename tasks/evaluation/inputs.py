"""What an evaluation is given to compare pictures with, and on whose features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.weights import read_header
from schemas.artifact import (
    EvaluationPairs,
    ImageShards,
    ImageTokenizer,
    RankedCandidates,
    Ranker,
    TextTokenizer,
)  # fmt: skip
from tasks.candidates import CandidateSet
from tasks.evaluation.compared import Compared, Real, compare
from tasks.evaluation.comparison import CACHED, Comparison
from tasks.evaluation.features import Extractor, Whose
from tasks.evaluation.overlap import OVERLAPS


class Declared(Protocol):
    """The parameters that bear on a comparison."""

    @property
    def originals(self) -> int:
        """Training pictures that are compared with."""

    def check(self, path: Path) -> Path:
        """The path, if the network in the file is declared."""
        ...


@dataclass(frozen=True)
class Inputs:
    """The inputs of the stage; see `tasks.evaluate`."""

    ranked: RankedCandidates
    images: ImageShards
    image_tokenizer: ImageTokenizer
    text_tokenizer: TextTokenizer | None
    evaluator: Ranker | None
    ranker: Ranker | None
    reference: EvaluationPairs | None

    def side(self, work: Work) -> int:
        """Pixels of a side, as they are drawn."""
        return int(read_header(work.fetch(self.image_tokenizer.units[0]))[1]["resolution"])

    def compare(
        self, sets: list[CandidateSet], chosen_by: str, comparison: Comparison,
        declared: Declared, work: Work,
    ) -> Compared:  # fmt: skip
        """Compare drawn pictures with real ones.

        Raises:
            PermanentError: if something that is declared cannot be measured.
        """
        if self.ranker is not None and self.ranker.digest != chosen_by:
            raise PermanentError(
                f"ranker: it is {self.ranker.digest}, but the pictures were chosen by {chosen_by};"
                " give another ranker as `evaluator`"
            )
        real = self._real(comparison, declared, work)
        extractors = self._extractors(comparison, declared, work)
        return compare(
            self.ranked.units, sets, real, self.images.units, extractors, comparison, work
        )

    def show_overlap(self, compared: Compared, work: Work) -> list[Path]:
        """What overlaps, in words and in pictures; nothing if it was not looked for."""
        overlap = compared.overlap
        if overlap is None or self.reference is None:
            return []
        sheets = overlap.draw(self.reference.units, self.images.units, self.side(work), work)
        return [overlap.write(work.scratch / OVERLAPS), *sheets]

    def _real(self, comparison: Comparison, declared: Declared, work: Work) -> Real:
        side, tokenizer = self.side(work), self.image_tokenizer.units[0]
        if self.reference is not None:
            return Real("a set to evaluate on", self.reference.units, None, side, tokenizer)
        if comparison.overlap_bounds:
            raise PermanentError(
                f"comparison.{comparison.overlap_bounds[0]}: drawn pictures are compared with"
                " training pictures, which all overlap; give a set to evaluate on as the input"
                " `reference`"
            )
        count = declared.originals
        return Real("training pictures", self.images.units, count, side, tokenizer)

    def _extractors(
        self, comparison: Comparison, declared: Declared, work: Work
    ) -> list[Extractor]:  # fmt: skip
        """A ranker's, if one is given, and Inception's where its weights are at hand."""
        found = [*self._of_ranker(declared, work), *_inception(comparison, work)]
        if not found:
            raise PermanentError(
                "comparison: there are no features to compare on; give `ranker`, or `evaluator`,"
                " as an input, or a file of weights as comparison.inception"
            )
        if found[0].name == "inception" and comparison.overlap is not None:
            raise PermanentError(
                "comparison.overlap: a ranker finds it; give the input `ranker`, or declare"
                " overlap_bits, which needs none, instead"
            )
        return found

    def _of_ranker(self, declared: Declared, work: Work) -> list[Extractor]:
        ranker = self.evaluator or self.ranker
        if ranker is None:
            return []
        name: Whose = "evaluator" if self.evaluator else "ranker"
        if self.text_tokenizer is None:
            raise PermanentError(f"text_tokenizer: {name} reads captions, so it needs this input")
        declared.check(work.fetch(ranker.units[0]))
        texts = self.text_tokenizer.units[0]
        return [Extractor(name=name, weights=ranker.units[0], text_tokenizer=texts)]


def _inception(comparison: Comparison, work: Work) -> list[Extractor]:
    if work.sources:  # the weights are the only source that an evaluation has
        weights = work.sources[0]
        return [
            Extractor(name="inception", weights=work.store.put(work.fetch(weights), weights.name))
        ]
    if comparison.inception == CACHED:
        work.message("Inception measures nothing: its weights are not in torch-fidelity's cache")
    return []
