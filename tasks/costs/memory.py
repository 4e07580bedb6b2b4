"""Memory of one GPU in training: as the paper held it, and as our engine holds it today.

m is the number of GPUs of a machine, over which both shard. Not counted: what driver and libraries
take for themselves, about one GB, and what lies unused between allocations.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from model_zoo.sizes import FP32, TransformerSize, compressed_share
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import Figure, Section, total
from tasks.costs.hardware import Hardware

BUCKET = 500_000_000 * FP32  # DeepSpeed's: gradients that are averaged together
LIVE = 1_000_000_000 * FP32  # DeepSpeed's: parameters that are gathered at a time under ZeRO 3
ALL = "in all"
PLAIN, FSDP = "plain torch", "FSDP2"
_SHARDINGS = ("ZeRO 1", "ZeRO 2", "ZeRO 3", FSDP)  # from the most memory to the least
_MOMENT = {"fp32": 4.0, "bf16": 2.0, "int8": 1 + 4 / 256}  # bytes a number of a moment


class Weights(NamedTuple):
    """What of a network's size bears on the memory that lasts."""

    parameters: int
    compressed: int
    """Those whose gradients can be compressed."""
    gathered: int
    """Bytes that FSDP2 has gathered at a time."""
    gathered_how: str


class Pass(NamedTuple):
    """What a GPU takes through the network at a time."""

    samples: int
    said: str


def one_pass(share: int, training: TrainingConfig) -> Pass:
    """Of a GPU's share of the batch: all at once, or as `micro_batch` says."""
    micro = training.micro_batch or share
    samples = min(micro, share)
    said = f"{samples}" if samples == share else f"{samples} of {share} at a time"
    if share % micro:
        said += f"; training refuses `micro_batch: {micro}`, which must divide the {share} of a GPU"
    return Pass(samples, said)


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
    return Section("Memory of a GPU as the paper held it", tuple(figures), fits(figures, hardware))


def _factors(size: TransformerSize, m: int, rank: int | None) -> float:
    return 2 * compressed_share(size.width, rank, m) * size.matrices / m if rank else 0


def our_memory(
    size: TransformerSize, hardware: Hardware, share: int, training: TrainingConfig
) -> Section:
    """What `model_zoo.training` holds on a GPU of the first machine, which has the most."""
    used, taken = sharding(training), one_pass(share, training)
    kept, samples = _activations(size, taken, training), taken.samples
    network = _weights(size)
    held = [*lasting(network, hardware, training, used), kept]
    figures = [*held, total(ALL, held)]
    others = [one for one in _SHARDINGS if one != used] if used != PLAIN else []
    needs = {used: figures[-1].value}
    for one in others:
        needs[one] = total(ALL, [*lasting(network, hardware, training, one), kept]).value
    figures += [
        Figure(f"{ALL}, with {one}", needs[one], "bytes", "the same for another sharding")
        for one in others
    ]
    if not training.recompute:
        again = size.recomputed_activations(samples, _bytes_in_block(training))
        figures.append(
            Figure("activations, if recomputed", again, "bytes",
                   "with `recompute: true`, each residual block computed again in the backward"
                   " pass")
        )  # fmt: skip
    title = f"Memory of a GPU as our engine holds it ({used})"
    return Section(title, tuple(figures), _verdict(figures, needs, used, hardware))


def sharding(training: TrainingConfig) -> str:
    """What the engine does with a network, as it is called in a plan."""
    if training.engine == "deepspeed":
        return f"ZeRO {training.zero_stage}"
    return FSDP if training.engine == "fsdp" else PLAIN


def _bytes_in_block(training: TrainingConfig) -> int:
    return FP32 if training.precision == "fp32" else 2


def _weights(size: TransformerSize) -> Weights:
    # In use, the one gathered ahead, and one's gradients.
    blocks = 3 * FP32 * 8 * size.width**2
    how = "96d² bytes: three feed-forward blocks"
    return Weights(size.parameters, size.matrices, blocks, how)


def lasting(
    network: Weights, hardware: Hardware, training: TrainingConfig, used: str
) -> list[Figure]:
    """All but activations."""
    whole, m = FP32 * network.parameters, hardware.gpus if used != PLAIN else 1
    in_pieces = used in ("ZeRO 3", FSDP)
    averaged, shares = training.ema is not None, "" if m == 1 else " / m"
    return [
        Figure("weights", whole / m if in_pieces else whole, "bytes",
               f"4 bytes a parameter{shares if in_pieces else ''}"),
        *_sharded(network, hardware, training, used, m),
        Figure("average", whole / m if averaged else 0, "bytes",
               f"4 bytes a parameter{shares}, on the first machine" if averaged
               else "none is kept"),
    ]  # fmt: skip


def _activations(size: TransformerSize, taken: Pass, training: TrainingConfig) -> Figure:
    samples = taken.samples
    bytes_, cast = _bytes_in_block(training), ", and a 16-bit copy of every matrix"
    if training.recompute:
        value = size.recomputed_activations(samples, bytes_)
        how = "4d a token for each of 2 x layers residual blocks, one block computed again, logits"
    else:
        value = size.kept_activations(samples, bytes_)
        how = f"all that autograd keeps{cast if bytes_ == 2 else ''}; nothing is computed again"
    return Figure("activations", value, "bytes", f"{how}; samples: {taken.said}")


def _sharded(
    network: Weights, hardware: Hardware, training: TrainingConfig, used: str, m: int
) -> list[Figure]:
    """Gradients, moments and buffers."""
    whole, shares = FP32 * network.parameters, "" if m == 1 else " / m"
    everywhere = used in (PLAIN, "ZeRO 1")
    copied = used in ("ZeRO 1", "ZeRO 2") and not training.offload
    moment = _MOMENT[training.moments]
    away = ", in the memory of the CPU" if training.offload else ""
    compressed = training.compression is not None and hardware.machines > 1
    buffers, how = _buffers(network, hardware, used)
    return [
        Figure("copy of weights", whole / m if copied else 0, "bytes",
               f"4 bytes a parameter{shares}" if copied else f"none{away}"),
        Figure("gradients", whole if everywhere else whole / m, "bytes",
               f"4 bytes a parameter{'' if everywhere else shares}"),
        Figure("moments", 0 if training.offload else 2 * moment * network.parameters / m, "bytes",
               f"{2 * moment:.3g} bytes a parameter{shares}{away}"),
        Figure("error buffers", FP32 * network.compressed / m if compressed else 0, "bytes",
               f"4 bytes a matrix weight{shares}" if compressed else "none without compression"),
        Figure("buffers", buffers, "bytes", how),
    ]  # fmt: skip


def _buffers(network: Weights, hardware: Hardware, used: str) -> tuple[float, str]:
    whole = FP32 * network.parameters
    if used == PLAIN:
        if hardware.gpus == 1:
            return 0.0, "none"
        return whole, "4 bytes a parameter: all gradients in one piece, to be averaged"
    if used == FSDP:
        return network.gathered, network.gathered_how
    if used == "ZeRO 3":
        how = "2 GB of gradients that are averaged together, at most 4 GB of gathered weights"
        return BUCKET + min(LIVE, whole), how
    return BUCKET, "2 GB of gradients that are averaged together"


def _verdict(figures: list[Figure], needs: dict[str, float], used: str, hardware: Hardware) -> str:
    there = hardware.gpu.memory
    fitting = [one for one in _SHARDINGS if needs.get(one, math.inf) <= there]
    said = fits(figures, hardware)
    if used == PLAIN or used in fitting:
        return said
    if fitting:
        return f"{said}; needs {fitting[0]}"
    if used in ("ZeRO 3", FSDP):
        return f"{said}; no sharding fits"
    return f"{said}; needs ZeRO 3, and even that takes {_gb(needs['ZeRO 3'])}"


def fits(figures: list[Figure], hardware: Hardware) -> str:
    """Whether all of it has room on a GPU."""
    need = next(one.value for one in figures if one.name == ALL)
    there = hardware.gpu.memory
    if need <= there:
        return f"fits: {_gb(need)} of {_gb(there)} ({hardware.kind})"
    return f"does not fit: {_gb(need)}, but there are {_gb(there)} ({hardware.kind})"


def _gb(value: float) -> str:
    return f"{value / 1e9:.3g} GB"
