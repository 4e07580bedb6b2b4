"""Artifacts: what passes between stages is a reference to units, never data.

A unit is one file, addressed by the sha256 of its bytes; an artifact is an ordered list of units of
one kind. Its content digest covers kind and units only, so a re-run that gives the same bytes
re-runs nothing after it. How it was made stands in the manifest (`schemas.manifest`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from schemas.base import Frozen, digest

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Names become file names on the machine that reads them: no separators, no leading dot.
UnitName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$")]


class Unit(Frozen):
    """One file of an artifact: a shard, a part of a table, a weights file."""

    name: UnitName
    sha256: Sha256
    size: int = Field(ge=0)
    records: int | None = Field(default=None, ge=0)


class Artifact(Frozen):
    """An ordered list of units of one kind; subclasses are the kinds."""

    kind: ClassVar[str]
    is_data: ClassVar[bool] = False  # collected or said of what was; not a model or what one made
    units: tuple[Unit, ...] = ()

    @property
    def digest(self) -> str:
        """The content digest: sha256 over kind, and name, digest and size of each unit in order."""
        units = [[unit.name, unit.sha256, unit.size] for unit in self.units]
        return digest({"kind": self.kind, "units": units})

    @property
    def records(self) -> int:
        """How many records the units hold together (units that do not count records add none)."""
        return sum(unit.records or 0 for unit in self.units)

    @property
    def size(self) -> int:
        """Bytes of all units."""
        return sum(unit.size for unit in self.units)


class PairTable(Artifact):
    """Parquet parts of image-text pairs (`schemas.records.PAIR_SCHEMA`)."""

    kind = "pair_table"
    is_data = True


class DropTable(Artifact):
    """Parquet parts of dropped pairs, each with its reason (`schemas.records.DROP_SCHEMA`)."""

    kind = "drop_table"
    is_data = True


class Outcomes(Artifact):
    """Parquet parts: the one outcome of every URL that was to be fetched."""

    kind = "outcomes"
    is_data = True


class ImageShards(Artifact):
    """WebDataset tars of images, captions and records."""

    kind = "image_shards"
    is_data = True


class EvaluationPairs(Artifact):
    """The same for pairs to evaluate on; a kind of its own, so that nothing is trained on them."""

    kind = "evaluation_pairs"


class ClusterTable(Artifact):
    """Parquet parts: clusters of duplicates with the survivor of each."""

    kind = "cluster_table"
    is_data = True


class Findings(Artifact):
    """Parquet parts: what filters measured or changed (`schemas.records.FINDING_SCHEMA`)."""

    kind = "findings"
    is_data = True


class PictureFeatures(Artifact):
    """Parquet parts: digest, hash and thumbnail of pictures, which later ones are compared with."""

    kind = "picture_features"
    is_data = True


class Embeddings(Artifact):
    """Safetensors: a contrastive model's features of pictures, which others are compared with."""

    kind = "embeddings"
    is_data = True


class TextTokenizer(Artifact):
    """A byte-level BPE, `tokenizer.json`."""

    kind = "text_tokenizer"


class ImageTokenizer(Artifact):
    """Weights and configuration of a network that turns pictures into codes and back."""

    kind = "image_tokenizer"


class CodeShards(Artifact):
    """Safetensors of caption tokens and image codes, ready for training."""

    kind = "code_shards"


class Prior(Artifact):
    """Weights and configuration of a generator of image codes given a caption."""

    kind = "prior"


class Ranker(Artifact):
    """Weights and configuration of a model that scores how well picture and caption match."""

    kind = "ranker"


class Candidates(Artifact):
    """Pictures drawn for prompts, not yet ranked."""

    kind = "candidates"


class RankedCandidates(Artifact):
    """Pictures drawn for prompts, with scores, best first."""

    kind = "ranked_candidates"


class Evaluation(Artifact):
    """Metrics and the sheets that show them."""

    kind = "evaluation"


def kinds() -> dict[str, type[Artifact]]:
    """Every kind of artifact by its name."""
    return {subclass.kind: subclass for subclass in Artifact.__subclasses__()}
