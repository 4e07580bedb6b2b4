"""Train the text tokenizer: a byte-level BPE over lower-cased captions (DALL-E, section 2.2).

Every text has tokens, since the alphabet is the 256 bytes. A word has the same tokens at the start
of a caption as within it. What comes out depends on the captions only: not on how they lie in
shards, and not on threads.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import Field
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from infra.errors import PermanentError
from infra.shards import read_shard
from infra.tables import read_table, write_table
from infra.work import ShardWork, Work
from schemas.artifact import ImageShards, TextTokenizer, Unit
from schemas.stage import StageParams, stage
from tasks.text import one_line

BYTES = 256
_CAPTIONS = pa.schema(
    [pa.field("key", pa.string(), nullable=False), pa.field("caption", pa.string(), nullable=False)]
)


class TextTokenizerParams(StageParams):
    """The size of the vocabulary.

    Attributes:
        vocabulary: tokens, the 256 bytes included; there are fewer when the captions hold fewer.
        min_frequency: how often a pair of tokens occurs at least to become one.
    """

    vocabulary: int = Field(default=16_384, ge=BYTES)
    min_frequency: int = Field(default=2, ge=1)


@stage(retries=2, memory_gb=1.0, versions=("tokenizers",))
def train_text_tokenizer(
    images: ImageShards, params: TextTokenizerParams, work: Work
) -> TextTokenizer:
    """Train on the captions of all pairs, in key order."""
    if not images.records:
        raise PermanentError("images: there is not one caption to learn words from")
    listed = work.map(list_captions, images.units).units("captions")
    tokenizer = train_bpe(_in_key_order(listed, work), params.vocabulary, params.min_frequency)
    work.count("tokens", tokenizer.get_vocab_size())
    path = work.scratch / "tokenizer.json"
    tokenizer.save(str(path))
    return TextTokenizer(units=(work.add(path, path.name),))


def train_bpe(captions: Iterator[str], vocabulary: int, min_frequency: int = 2) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary` tokens over the captions."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = Normalizers([NFC(), Lowercase()])
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=min_frequency,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def list_captions(unit: Unit, shard: ShardWork) -> None:
    """The captions of one shard as a table, in key order."""
    path = shard.scratch / f"captions-{unit.name}.parquet"
    samples = read_shard(shard.fetch(unit))
    rows = ({"key": sample.key, "caption": one_line(sample.caption)} for sample in samples)
    shard.add("captions", path, path.name, write_table(path, rows, _CAPTIONS))


def _in_key_order(units: tuple[Unit, ...], work: Work) -> Iterator[str]:
    rows = heapq.merge(*(_rows(work.fetch(unit)) for unit in units))
    return (caption for _, caption in rows)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    return ((row["key"], row["caption"]) for row in read_table(path, _CAPTIONS))
