"""Bytes that GPUs and machines send in one step: as the paper shards, and as our engine does.

M machines of m GPUs, N = M·m. What all must know goes round a ring, so that to gather or to scatter
V bytes among n, each sends V(n - 1)/n, and twice that to average them.
"""

from __future__ import annotations

from model_zoo.sizes import FP32, TransformerSize, compressed_share
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import Figure, Section
from tasks.costs.hardware import Hardware


def papers_traffic(size: TransformerSize, hardware: Hardware, rank: int | None) -> Section:
    """Weights gathered and gradients scattered inside a machine, averaged between machines."""
    m, machines = hardware.gpus, hardware.machines
    matrices, others = 2 * size.matrices, FP32 * size.others
    between = 2 * (machines - 1) / machines
    figures = [
        Figure("inside, a GPU", 3 * (matrices + others) * (m - 1) / m, "bytes",
               "3(m - 1)/m x weights (2 bytes for matrices, 4 for the rest): gathered for either"
               " pass, gradients scattered"),
        Figure("between, a GPU", between * (matrices + others) / m, "bytes",
               "2(M - 1)/M x gradients / m: averaged with its counterparts, not compressed"),
        Figure("between, a machine", between * (matrices + others), "bytes",
               "m times that"),
    ]  # fmt: skip
    if rank:
        share = compressed_share(size.width, rank, m)
        packed = between * (share * matrices + others)
        figures += [
            Figure("saved of matrices", 1 - share, "share",
                   f"1 - r(m + 2)/(2dm) at rank r = {rank}, {rank // m} a GPU; at m = 8"
                   " 1 - 5r/(8d)"),
            Figure("between, a GPU, compressed", packed / m, "bytes",
                   "factors instead of the matrices' gradients, the rest as it is"),
            Figure("between, a machine, compressed", packed, "bytes", "m times that"),
        ]  # fmt: skip
    return Section("Sent in a step as the paper shards", tuple(figures))


def our_traffic(size: TransformerSize, hardware: Hardware, training: TrainingConfig) -> Section:
    """fp32, sharded inside each machine; between machines each GPU exchanges its shard."""
    plain, m = training.engine == "torch", hardware.gpus
    in_pieces = training.engine == "fsdp" or training.zero_stage == 3
    # DeepSpeed averages whole buckets under ZeRO 1 and 2, of which each keeps its part.
    times, how = (2, "gradients averaged") if plain else (
        3, "weights gathered for either pass, gradients scattered"
        if in_pieces else "gradients averaged, new weights gathered",
    )  # fmt: skip
    whole = FP32 * size.parameters
    ring = 2 * (hardware.machines - 1) / hardware.machines
    shard = whole if plain else whole / m
    figures = [
        Figure("inside, a GPU", times * whole * (m - 1) / m, "bytes",
               f"{times}(m - 1)/m x 4 bytes a parameter: {how}"),
        Figure("between, a GPU", ring * shard, "bytes",
               f"2(M - 1)/M x 4 bytes a parameter{'' if plain else ' / m'}: averaged with its"
               " counterparts" if ring else "there is one machine"),
    ]  # fmt: skip
    if ring and training.compression is not None:
        figures += _compressed(size, hardware, training, ring)
    last = figures[-1]
    figures.append(Figure("between, a machine", m * last.value, "bytes", "m times that"))
    return Section("Sent in a step as our engine shards", tuple(figures))


def _compressed(
    size: TransformerSize, hardware: Hardware, training: TrainingConfig, ring: float
) -> list[Figure]:
    assert training.compression is not None
    rank, d = training.compression.rank, size.width
    m = 1 if training.engine == "torch" else hardware.gpus
    if rank is None:
        saving = training.compression.saving
        assert saving is not None
        share, how = 1 - saving, "as declared"
    elif training.engine == "fsdp":
        share, how = compressed_share(d, rank, m), "1 - r(m + 2)/(2dm), as the paper cuts"
    elif training.engine == "deepspeed" and training.zero_stage == 3:
        share, how = 3 * rank * (m + 1) / (4 * d * m), "1 - 3r(m + 1)/(4dm): all cut by rows"
    else:
        share, how = 3 * rank / (2 * d), "1 - 3r/(2d): matrices are hardly cut"
    if share >= 1:
        raise ValueError(f"compression.rank: {rank} saves nothing at width {d} as our engine cuts")
    wire = FP32 if training.compression.wire == "fp32" else 2
    packed = share * wire / FP32
    sent = ring * FP32 * (packed * size.matrices + size.others) / m
    return [
        Figure("saved of matrices", 1 - packed, "share",
               how if wire == FP32 else f"{how}; twice as short in 16 bits"),
        Figure("between, a GPU, compressed", sent, "bytes",
               "factors instead of the matrices' gradients, the rest as it is"),
    ]  # fmt: skip
