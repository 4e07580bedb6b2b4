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
    """fp32, sharded over all GPUs alike, without compression."""
    stage = training.zero_stage if training.engine == "deepspeed" else 0
    # DeepSpeed averages whole buckets under ZeRO 1 and 2, of which each keeps its part.
    times, how = {
        0: (2, "gradients averaged"),
        1: (3, "gradients averaged, new weights gathered"),
        2: (3, "gradients averaged, new weights gathered"),
        3: (3, "weights gathered for either pass, gradients scattered"),
    }[stage]
    n = hardware.all
    sent = times * FP32 * size.parameters * (n - 1) / n
    between = sent if hardware.machines > 1 else 0
    figures = (
        Figure("inside, a GPU", sent, "bytes", f"{times}(N - 1)/N x 4 bytes a parameter: {how}"),
        Figure("between, a machine", between, "bytes",
               "as one GPU: a ring over all GPUs leaves each machine once; not compressed"
               if between else "there is one machine"),
    )  # fmt: skip
    return Section("Sent in a step as our engine shards", figures)
