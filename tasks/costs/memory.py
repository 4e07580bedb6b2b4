"""Memory of one GPU in training: as the paper held it, and as our engine holds it today.

N is the number of all GPUs, m of those of one machine. Not counted: what driver and libraries take
for themselves, about one GB, and what lies unused between allocations.
"""

from __future__ import annotations

from model_zoo.sizes import FP32, TransformerSize, compressed_share
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import Figure, Section, total
from tasks.costs.hardware import Hardware

BUCKET = 500_000_000 * FP32  # DeepSpeed's: gradients that are averaged together
LIVE = 1_000_000_000 * FP32  # DeepSpeed's: parameters that are gathered at a time under ZeRO 3
ALL = "in all"


def papers_memory(
    size: TransformerSize, hardware: Hardware, samples: int, rank: int | None
) -> Section:
    """16 bits for the matrices and their moments, all sharded over the GPUs of a machine.

    Appendices D and E. Gradients are added straight to the error buffers of the compression. Where
    the moving average of the weights lies is not told; it is not counted.
    """
    m, matrices, others = hardware.gpus, size.matrices, size.others
    block = 8 * size.width**2  # matrices of the larger residual block, the feed-forward one
    figures = [
        Figure("weights", (2 * matrices + FP32 * others) / m, "bytes",
               "(2 bytes a matrix weight + 4 a parameter of the rest) / m"),
        Figure("moments", 2 * (2 * matrices + FP32 * others) / m, "bytes",
               "twice that: two moments, 16 bits each for the matrices"),
        Figure("gradients", ((0 if rank else 2 * matrices) + FP32 * others) / m, "bytes",
               "4 bytes a parameter of the rest / m; those of matrices are added to error buffers"
               if rank else "as the weights: nothing is compressed"),
        Figure("error buffers", (2 * matrices if rank else 0) / m, "bytes",
               "2 bytes a matrix weight / m" if rank else "none without compression"),
        Figure("factors", _factors(size, m, rank), "bytes",
               "2 bytes a number of P and Q, of all layers"),
        Figure("gathered blocks", 3 * 2 * block, "bytes",
               "16d² bytes for a feed-forward block in use, for the next one, for a gradient"),
        Figure("activations", size.recomputed_activations(samples, 2), "bytes",
               "4d a token for each of 2 x layers residual blocks, one block computed again,"
               f" logits; samples: {samples}"),
    ]  # fmt: skip
    figures.append(total(ALL, figures))
    return Section("Memory of a GPU as the paper held it", tuple(figures), _fits(figures, hardware))


def _factors(size: TransformerSize, m: int, rank: int | None) -> float:
    return 2 * compressed_share(size.width, rank, m) * size.matrices / m if rank else 0


def our_memory(
    size: TransformerSize, hardware: Hardware, samples: int, training: TrainingConfig
) -> Section:
    """What `model_zoo.training.engine` holds on the first GPU, which has the most."""
    stage = training.zero_stage if training.engine == "deepspeed" else None
    held = _held(size, hardware, samples, training, stage)
    figures = [*held, _peak(held)]
    stages: list[int] = sorted({1, 2, 3, stage}) if stage is not None else []
    needs = {one: _peak(_held(size, hardware, samples, training, one)).value for one in stages}
    figures += [
        Figure(f"{ALL}, with ZeRO {one}", needs[one], "bytes", "the same for another sharding")
        for one in stages if one != stage
    ]  # fmt: skip
    again = size.recomputed_activations(samples, _bytes_in_block(training))
    figures.append(
        Figure("activations, if recomputed", again, "bytes",
               "were each residual block computed again in the backward pass: not done by our"
               " engine yet")
    )  # fmt: skip
    title = "Memory of a GPU as our engine holds it"
    name = f"ZeRO {stage}" if stage is not None else "plain torch"
    return Section(f"{title} ({name})", tuple(figures), _verdict(figures, needs, stage, hardware))


def _bytes_in_block(training: TrainingConfig) -> int:
    return FP32 if training.precision == "fp32" else 2


def _held(
    size: TransformerSize, hardware: Hardware, samples: int, training: TrainingConfig,
    stage: int | None,
) -> list[Figure]:  # fmt: skip
    whole, n = FP32 * size.parameters, hardware.all
    activations = size.kept_activations(samples, _bytes_in_block(training))
    cast = "" if training.precision == "fp32" else ", and a 16-bit copy of every matrix"
    return [
        Figure("weights", whole / n if stage == 3 else whole, "bytes",
               "4 bytes a parameter" + (" / N" if stage == 3 else "")),
        *_sharded(whole, n, stage),
        Figure("average", whole if training.ema is not None else 0, "bytes",
               "4 bytes a parameter on the first GPU, none on the others"
               if training.ema is not None else "none is kept"),
        Figure("activations", activations, "bytes",
               f"all that autograd keeps{cast}; nothing is computed again; samples: {samples}"),
        Figure("gathered whole", 2 * whole if stage == 3 else 0, "bytes",
               "4 bytes a parameter, and a copy, at the start and whenever the average moves"
               if stage == 3 else "every GPU holds all weights"),
    ]  # fmt: skip


def _sharded(whole: int, n: int, stage: int | None) -> list[Figure]:
    """Gradients, moments and buffers of an engine; `stage` None is that without DeepSpeed."""
    gradients = whole / n if stage in (2, 3) else whole
    moments = 2 * whole / n if stage else 2 * whole
    copy, buffers, how = 0.0, 0.0, "none"
    if stage is None and n > 1:
        buffers, how = whole, "4 bytes a parameter: all gradients in one piece, to be averaged"
    elif stage in (1, 2):
        copy = whole / n
        buffers, how = BUCKET, "2 GB of gradients that are averaged together"
    elif stage == 3:
        buffers = BUCKET + min(LIVE, whole)
        how = "2 GB of gradients that are averaged together, at most 4 GB of gathered weights"
    return [
        Figure("copy of weights", copy, "bytes", "4 bytes a parameter / N" if copy else "none"),
        Figure("gradients", gradients, "bytes",
               "4 bytes a parameter" + (" / N" if stage in (2, 3) else "")),
        Figure("moments", moments, "bytes",
               "8 bytes a parameter" + (" / N" if stage else "")),
        Figure("error buffers", 0, "bytes", "none: our engine does not compress yet"),
        Figure("buffers", buffers, "bytes", how),
    ]  # fmt: skip


def _peak(held: list[Figure]) -> Figure:
    """The most at a time: activations are gone when the whole network is gathered."""
    values = {one.name: one.value for one in held}
    passing = ("activations", "gathered whole")
    lasting = sum(value for name, value in values.items() if name not in passing)
    most = lasting + max(values[name] for name in passing)
    return Figure(ALL, most, "bytes", "their sum, but of the last two only the larger")


def _verdict(
    figures: list[Figure], needs: dict[int, float], stage: int | None, hardware: Hardware
) -> str:
    there = hardware.gpu.memory
    fitting = [one for one, need in needs.items() if need <= there]
    said = _fits(figures, hardware)
    if stage is None or stage in fitting:
        return said
    if fitting:
        return f"{said}; {'needs' if fitting[0] > stage else 'fits under'} ZeRO {fitting[0]}"
    if stage == 3:
        return f"{said}; no ZeRO stage fits"
    return f"{said}; needs ZeRO 3, and even that takes {_gb(needs[3])}"


def _fits(figures: list[Figure], hardware: Hardware) -> str:
    need = next(one.value for one in figures if one.name == ALL)
    there = hardware.gpu.memory
    if need <= there:
        return f"fits: {_gb(need)} of {_gb(there)} ({hardware.kind})"
    return f"does not fit: {_gb(need)}, but there are {_gb(there)} ({hardware.kind})"


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g} GB"
