"""The plan of one prior: every section, from the parameters of the stages that lead to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_zoo.dvae_size import ImageTokenizerSize
from model_zoo.sizes import TransformerSize, image_tokenizer_size, transformer_size
from model_zoo.training.checkpoints import KEEP
from model_zoo.training.config import CompressionConfig, TrainingConfig
from tasks.costs.figures import PASSES, Figure, Section, rent, total
from tasks.costs.hardware import Hardware
from tasks.costs.memory import one_pass, our_memory, papers_memory
from tasks.costs.rankers import ranker_training
from tasks.costs.tokenizer import tokenizer_memory, tokenizer_training
from tasks.costs.traffic import our_traffic, papers_traffic
from tasks.encode_pairs import EncodeParams
from tasks.import_image_tokenizer import ImportParams
from tasks.train_image_tokenizer import ImageTokenizerParams
from tasks.train_prior import PriorParams
from tasks.train_ranker import RankerParams
from tasks.train_text_tokenizer import TextTokenizerParams


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for given.

    Attributes:
        utilisation: share of a GPU's stated rate that becomes the model's arithmetic; what is
            computed again, and waiting, is part of what is lost.
        tokens_per_second: of one GPU, measured in a short run; gives the utilisation instead.
        rank: of the gradients' compression, of all GPUs of a machine together, instead of the
            declared one.
        batch: samples a step, instead of the declared ones.
        pairs: image-text pairs that are collected.
        picture_bytes: of a picture as it is fetched, on average.
        download: bits a second of all downloads together.
    """

    hardware: Hardware = field(default_factory=Hardware)
    utilisation: float = 0.4
    tokens_per_second: float | None = None
    rank: int | None = None
    batch: int | None = None
    pairs: int = 1_000_000
    picture_bytes: int = 100_000
    download: float = 1e9


@dataclass(frozen=True)
class Stages:
    """Parameters of a prior's stage, and of those that it learns from.

    `pictures` are stages that write all pictures anew, `prepared` those that keep all pictures at a
    side of so many pixels. `rankers` are those that are trained, evaluators among them.
    """

    prior: PriorParams
    codes: EncodeParams
    text_tokenizer: TextTokenizerParams
    image_tokenizer: ImageTokenizerParams | ImportParams
    pictures: tuple[str, ...] = ()
    prepared: Mapping[str, int] = field(default_factory=dict)
    rankers: Mapping[str, RankerParams] = field(default_factory=dict)

    def tokenizer_size(self) -> ImageTokenizerSize:
        """The image tokenizer's; the published one's where weights are imported."""
        made = self.image_tokenizer
        if isinstance(made, ImportParams):
            return image_tokenizer_size("dvae", {"resolution": made.resolution})
        return image_tokenizer_size(made.network, made.config)

    def size(self) -> TransformerSize:
        """The prior's, with a text vocabulary as large as is declared."""
        pictures = self.tokenizer_size()
        config = self.prior.with_sizes({
            "text_vocabulary": self.text_tokenizer.vocabulary,
            "text_length": self.codes.text_length,
            "image_vocabulary": pictures.vocabulary,
            "grid_height": pictures.grid,
            "grid_width": pictures.grid,
        })  # fmt: skip
        return transformer_size(self.prior.network, config)


def plan_costs(stages: Stages, given: Assumptions) -> list[Section]:
    """All sections.

    Raises:
        ValueError: naming what does not fit together, and what would.
    """
    size, hardware = stages.size(), given.hardware
    training, rank = _with_rank(stages.prior.training, given.rank)
    batch = given.batch or training.batch_size
    share = hardware.share_of(batch)
    sent = papers_traffic(size, hardware, rank)
    arithmetic = _arithmetic(size, batch)
    duration = _duration(size, training, batch, given, sent, compressed=rank is not None)
    return [
        _parameters(size, stages.tokenizer_size()),
        papers_memory(size, hardware, one_pass(share, training).samples, rank),
        our_memory(size, hardware, share, training),
        sent,
        our_traffic(size, hardware, training),
        arithmetic,
        duration,
        *_of_tokenizer(stages, size, given),
        *_of_rankers(stages, size, given),
        _storage(stages, size, given),
    ]


def _with_rank(training: TrainingConfig, given: int | None) -> tuple[TrainingConfig, int | None]:
    """The training with the rank that was given, if one was, and the rank that holds."""
    declared = training.compression
    if given is None:
        return training, declared.rank if declared is not None else None
    values = declared.model_dump() if declared is not None else {}
    compression = CompressionConfig.model_validate({**values, "rank": given, "saving": None})
    return training.model_copy(update={"compression": compression}), given


def _parameters(size: TransformerSize, pictures: ImageTokenizerSize) -> Section:
    figures = [
        Figure("matrices of blocks", size.matrices, "parameters", "12d² x layers"),
        Figure("gains and biases", size.gains_and_biases, "parameters",
               "13d x layers + 2d + outputs"),
        Figure("embeddings", size.embeddings, "parameters",
               "d x (text and padding tokens, codes, positions, rows, columns, start)"),
        Figure("unembeddings", size.unembeddings, "parameters",
               "d x (text and padding tokens, codes)"),
    ]  # fmt: skip
    figures += [
        total("prior", figures),
        Figure("encoder of pictures", pictures.encoder, "parameters",
               "inputs x outputs x kernel² + outputs, of every convolution"),
        Figure("decoder of pictures", pictures.decoder, "parameters", "the same"),
        Figure("matrices at 16 bits", 2 * size.matrices, "bytes", "2 bytes each"),
        Figure("prior at 16 bits", 2 * size.parameters, "bytes", "2 bytes each"),
        Figure("context is smaller", pictures.shrinkage, "times",
               "values of a picture (pixels x 3) / its codes"),
    ]  # fmt: skip
    return Section("Parameters", tuple(figures))


def _arithmetic(size: TransformerSize, batch: int) -> Section:
    parts = {"matrices": size.matrix_flops, "attention": size.attention_flops,
             "logits": size.logit_flops}  # fmt: skip
    how = {
        "matrices": "6 x matrices of blocks",
        "attention": "12d x positions that a mask allows, mean over tokens, summed over layers",
        "logits": "6d x outputs of a token",
    }
    figures = [
        Figure(f"{name}, a token", PASSES * flops / size.tokens, "FLOP", how[name])
        for name, flops in parts.items()
    ]
    token = total("a token", figures, "their sum: 2 FLOPs a product, forward once, backward twice")
    step = token.value * size.tokens * batch
    figures += [
        token,
        Figure("a step", step, "FLOP", f"{batch:,} samples of {size.tokens:,} tokens"),
        Figure("a step, recomputed", step * 4 / 3, "FLOP",
               "the forward pass twice, as the paper does; it is not the model's own arithmetic"),
    ]  # fmt: skip
    return Section("Arithmetic of training the prior", tuple(figures))


def _duration(
    size: TransformerSize, training: TrainingConfig, batch: int, given: Assumptions, sent: Section,
    compressed: bool,
) -> Section:  # fmt: skip
    hardware, steps = given.hardware, training.steps
    utilisation, said = _utilisation(size, given)
    rate = hardware.all * hardware.gpu.flops * utilisation
    seconds = PASSES * size.flops * batch / rate
    packed = "between, a machine, compressed" if compressed else "between, a machine"
    figures = [
        Figure("utilisation", utilisation, "share", said),
        Figure("a step", seconds, "s",
               f"FLOPs of a step / ({hardware.all:,} x {hardware.gpu.flops / 1e12:.0f} TFLOP/s"
               " x utilisation)"),
        Figure("tokens of a GPU", utilisation * hardware.gpu.flops / (PASSES * size.flops)
               * size.tokens, "tokens/s", "rate x utilisation / FLOPs a token"),
        *rent("the run", seconds * steps, f"{steps:,} steps", hardware),
        Figure("network of a machine", 8 * sent.value(packed) / seconds, "bit/s",
               "what a machine sends to others in a step / its time, as the paper shards"),
    ]  # fmt: skip
    verdict = _precision(training, hardware)
    return Section("Time and cost of training the prior", tuple(figures), verdict)


def _precision(training: TrainingConfig, hardware: Hardware) -> str:
    if training.precision == "bf16" and not hardware.gpu.bf16:
        return f"{hardware.kind} has no bf16, which is declared; declare fp16, which has scales"
    if training.precision == "fp32":
        return "fp32 is declared, which is slower than the 16-bit rate that is reckoned with"
    return ""


def _utilisation(size: TransformerSize, given: Assumptions) -> tuple[float, str]:
    if given.tokens_per_second is None:
        return given.utilisation, "assumed"
    flops = PASSES * size.flops / size.tokens * given.tokens_per_second
    return flops / given.hardware.gpu.flops, (
        f"{given.tokens_per_second:g} tokens a second measured on one GPU x FLOPs a token / rate"
    )


def _of_tokenizer(stages: Stages, prior: TransformerSize, given: Assumptions) -> list[Section]:
    """On the same GPUs, at the same share of their rate."""
    made = stages.image_tokenizer
    if isinstance(made, ImportParams):
        return [Section("Training the image tokenizer", (), "its weights are given, as published")]
    size, (utilisation, _) = stages.tokenizer_size(), _utilisation(prior, given)
    return [
        tokenizer_memory(size, made.training, given.hardware),
        tokenizer_training(size, made.training, given.hardware, utilisation),
    ]


def _of_rankers(stages: Stages, prior: TransformerSize, given: Assumptions) -> list[Section]:
    """On the same GPUs, at the same share of their rate."""
    vocabulary, (utilisation, _) = stages.text_tokenizer.vocabulary, _utilisation(prior, given)
    return [
        ranker_training(name, params, vocabulary, given.hardware, utilisation)
        for name, params in stages.rankers.items()
    ]


def _storage(stages: Stages, size: TransformerSize, given: Assumptions) -> Section:
    codes, pairs = stages.codes, given.pairs
    numbers = codes.text_length * (1 + codes.caption_variants)
    numbers += codes.crops * stages.tokenizer_size().grid ** 2
    fetched = given.picture_bytes * pairs
    training = stages.prior.training
    states, how = (12, "weights")
    if training.ema is not None:
        states, how = states + 4, f"{how}, average"
    figures = [
        Figure("pictures as fetched", fetched, "bytes",
               f"{pairs:,} pairs x {given.picture_bytes:,} bytes (assumed)"),
        *(Figure(f"pictures after {name}", fetched, "bytes",
                 "at most as much again: only shards that stay as they are take no place")
          for name in stages.pictures),
        *(Figure(f"pictures for {name}", pairs * 3 * side**2, "bytes",
                 f"3 x {side}² bytes a pair, not compressed")
          for name, side in stages.prepared.items()),
        Figure("tokens and codes", pairs * 4 * numbers, "bytes",
               f"4 bytes x {numbers:,} numbers a pair"),
        Figure("checkpoints", KEEP * states * size.parameters, "bytes",
               f"{KEEP} of {states} bytes a parameter: {how}, two moments"),
    ]  # fmt: skip
    figures += [
        total("storage", figures),
        Figure("download", 8 * fetched / given.download, "s",
               f"pictures as fetched, at {given.download / 1e6:g} Mbit/s (assumed)"),
    ]  # fmt: skip
    return Section("Storage and download of the pairs", tuple(figures))
