"""What machines exchange: gradients averaged as they are, or compressed to low rank (PowerSGD).

After the gradients were averaged and sharded inside a machine, each process averages its pieces
with its counterparts, the processes of the same place on the other machines (DALL-E, appendix E;
Vogels et al., arXiv 1905.13727). A matrix G of a residual block goes as two factors:

    E += G;  P = orthogonal(mean(E Q));  F = mean(E' P);  G = P F';  E -= G

E is the error buffer, into which the gradient is added, so that what one update leaves out the
next ones make up for. Q is drawn once and stays, as in the paper, or is the last F (warm start). A
fixed Q makes up for it only as gradients change: after an update the mean of E Q is zero, so that a
gradient that stayed the same would go on being seen through the same columns.
Gains, biases, embeddings, output matrices and the ragged ends of fragments go uncompressed in fp32.

A matrix that is cut among m processes has m pieces, each of the same share of the rank.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from model_zoo.training.config import Precision
from model_zoo.training.fragments import Piece
from model_zoo.training.precision import TYPES

_EPSILON = 1e-6  # of the identity, added before the orthogonalisation (paper)
_BUCKET = 1 << 24  # elements of matrices that are compressed together, in whole blocks
_HALF_MOST = 2.0**15  # what sums of factors stay below in fp16, which ends at 65,504


class Shape(NamedTuple):
    """A matrix to compress: its size here, and what part of the whole matrix it is."""

    rows: int
    columns: int
    share: float

    def rank(self, whole: int) -> int:
        """Rank of this piece when the whole matrix has rank `whole`; 0 if it pays to send it plain.

        At least 1, so that no piece is left without any.
        """
        rank = max(1, round(whole * self.share))
        if rank >= min(self.rows, self.columns):
            return 0
        return rank if rank * (self.rows + self.columns) < self.rows * self.columns else 0

    def sent(self, whole: int) -> int:
        """Numbers that one exchange of this piece takes."""
        rank = self.rank(whole)
        return rank * (self.rows + self.columns) if rank else self.rows * self.columns


def choose_rank(shapes: Sequence[Shape], saving: float) -> int:
    """The largest rank at which that share of the matrices' numbers is not sent.

    Raises:
        ValueError: if rank 1 already sends more.
    """
    whole = sum(shape.rows * shape.columns for shape in shapes)
    most = max((int(min(s.rows, s.columns) / s.share) for s in shapes), default=0)
    low, high = 0, most
    while low < high:  # the numbers sent grow with the rank
        middle = (low + high + 1) // 2
        fits = sum(shape.sent(middle) for shape in shapes) <= (1 - saving) * whole
        low, high = (middle, high) if fits else (low, middle - 1)
    if not low:
        least = sum(shape.sent(1) for shape in shapes)
        reached = 1 - least / whole if whole else 0.0
        raise ValueError(
            f"compression.saving: {saving:.0%} cannot be reached with these matrices; rank 1 saves"
            f" {reached:.0%}"
        )
    return low


@dataclass
class Traffic:
    """Bytes that this process has put on the wire, and what averaging as it is would have taken."""

    sent: int = 0
    plain: int = 0
    taken: int = 0

    def take(self) -> int:
        """Bytes sent since this was asked the last time."""
        since, self.taken = self.sent - self.taken, self.sent
        return since


def orthogonal(matrices: Tensor) -> Tensor:
    """Columns [..., n, r] made orthonormal by Householder reflections, in fp32.

    1e-6 of the identity is added, relative to the largest entry, so that a matrix of zeros, or one
    of lower rank, gives orthonormal columns, too.
    """
    n, r = matrices.shape[-2:]
    largest = matrices.abs().amax((-2, -1), keepdim=True)
    unit = matrices / torch.where(largest > 0, largest, 1.0)
    return torch.linalg.qr(unit + _EPSILON * torch.eye(n, r, device=matrices.device)).Q


@dataclass
class _Bundle:
    """Matrices of one shape and rank, compressed together."""

    pieces: list[Piece]
    rank: int

    def stack(self, buffers: dict[str, Tensor]) -> Tensor:
        return torch.stack([buffers[piece.key] for piece in self.pieces])


@dataclass
class Exchange:
    """Averages pieces of gradients between machines; see the module's text.

    Attributes:
        group: this process's counterparts; None where there is one machine.
        rank: of whole matrices; None to compress nothing.
        errors: error buffer by piece, fp32.
        factors: Q by piece.
    """

    group: dist.ProcessGroup | None
    machines: int
    rank: int | None = None
    warm_start: bool = False
    wire: Precision = "fp32"
    seed: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    errors: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def average(self, pieces: Sequence[Piece]) -> None:
        """Replace each piece by its mean over the machines, or by what compression leaves of it."""
        if self.group is None:
            return
        self.traffic.plain += sum(4 * piece.gradient.numel() for piece in pieces)
        plain = [piece.gradient for piece in pieces if not self._rank(piece)]
        sums = self._start(plain, "fp32")
        buckets = self._buckets([piece for piece in pieces if self._rank(piece)])
        left = [(bucket, self._start(self._project(bucket), self.wire)) for bucket in buckets]
        right = []
        for bucket, projected in left:
            bases = [orthogonal(p) for p in projected.wait()]
            wanted = [b.stack(self.errors).mT @ p for b, p in zip(bucket, bases, strict=True)]
            right.append((bucket, bases, self._start(wanted, self.wire)))
        for bucket, bases, answered in right:
            for bundle, p, q in zip(bucket, bases, answered.wait(), strict=True):
                self._apply(bundle, p, q)
        for gradient, mean in zip(plain, sums.wait(), strict=True):
            gradient.copy_(mean)

    def _rank(self, piece: Piece) -> int:
        if self.rank is None or piece.share is None:
            return 0
        rows, columns = piece.gradient.shape
        return Shape(rows, columns, piece.share).rank(self.rank)

    def _buckets(self, pieces: Sequence[Piece]) -> list[list[_Bundle]]:
        """Whole blocks together, until a bucket is full; in it, matrices of one shape together."""
        blocks: dict[str, list[Piece]] = {}
        for piece in pieces:
            blocks.setdefault(piece.block, []).append(piece)
        buckets: list[list[Piece]] = []
        size = _BUCKET
        for block in blocks.values():
            if size >= _BUCKET:
                buckets.append([])
                size = 0
            buckets[-1] += block
            size += sum(piece.gradient.numel() for piece in block)
        return [self._bundles(bucket) for bucket in buckets]

    def _bundles(self, pieces: Sequence[Piece]) -> list[_Bundle]:
        alike: dict[tuple[int, ...], list[Piece]] = {}
        for piece in pieces:
            alike.setdefault((*piece.gradient.shape, self._rank(piece)), []).append(piece)
        return [_Bundle(some, shape[-1]) for shape, some in alike.items()]

    def _project(self, bucket: Sequence[_Bundle]) -> list[Tensor]:
        """E Q of each bundle, after the gradient was added to the error buffer."""
        for bundle in bucket:
            for piece in bundle.pieces:
                self._error(piece).add_(piece.gradient)
                self._factor(piece, bundle.rank)
        return [bundle.stack(self.errors) @ bundle.stack(self.factors) for bundle in bucket]

    def _apply(self, bundle: _Bundle, p: Tensor, q: Tensor) -> None:
        for number, piece in enumerate(bundle.pieces):
            torch.mm(p[number], q[number].mT, out=piece.gradient)
            self.errors[piece.key].sub_(piece.gradient)
            if self.warm_start:
                self.factors[piece.key] = q[number].clone()

    def _error(self, piece: Piece) -> Tensor:
        if piece.key not in self.errors:
            self.errors[piece.key] = torch.zeros_like(piece.gradient)
        return self.errors[piece.key]

    def _factor(self, piece: Piece, rank: int) -> Tensor:
        found = self.factors.get(piece.key)
        if found is None or found.shape != (piece.gradient.shape[1], rank):
            # By name: the counterparts on all machines draw the same.
            draw = torch.Generator().manual_seed(self.seed ^ zlib.crc32(piece.key.encode()))
            found = torch.randn(piece.gradient.shape[1], rank, generator=draw)
            self.factors[piece.key] = found = found.to(piece.gradient.device)
        return found

    def _start(self, tensors: Sequence[Tensor], wire: Precision) -> _Mean:
        mean = _Mean(tensors, wire, self.group, self.machines)
        self.traffic.sent += mean.bytes
        return mean


class _Mean:
    """The mean of tensors over machines, on its way in one all-reduce."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        wire: Precision,
        group: dist.ProcessGroup | None,
        machines: int,
    ) -> None:
        self.tensors = tensors
        self.bytes = 0
        if not tensors:
            return
        self.scales = self._agree(group) if wire == "fp16" else None
        parts = [tensor / machines for tensor in tensors]
        if self.scales is not None:
            parts = [part * scale for part, scale in zip(parts, self.scales, strict=True)]
        self.flat = torch.cat([part.reshape(-1).to(TYPES[wire]) for part in parts])
        self.bytes += self.flat.numel() * self.flat.element_size()
        self.work = dist.all_reduce(self.flat, group=group, async_op=True)

    def _agree(self, group: dist.ProcessGroup | None) -> list[Tensor]:
        """A power of two for each matrix that brings the sum over machines below fp16's end."""
        found = [tensor.abs().amax((-2, -1), keepdim=True) for tensor in self.tensors]
        largest = torch.cat([one.view(-1) for one in found])
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        self.bytes += largest.numel() * largest.element_size()
        exponent = torch.floor(torch.log2(_HALF_MOST / largest.clamp_min(2.0**-100)))
        scales = torch.exp2(exponent.clamp(-100, 100)).split([one.numel() for one in found])
        return [scale.view(one.shape) for scale, one in zip(scales, found, strict=True)]

    def wait(self) -> list[Tensor]:
        """The means, fp32."""
        if not self.tensors:
            return []
        self.work.wait()
        parts = self.flat.float().split([tensor.numel() for tensor in self.tensors])
        means = [part.view(one.shape) for part, one in zip(parts, self.tensors, strict=True)]
        if self.scales is not None:
            means = [mean / scale for mean, scale in zip(means, self.scales, strict=True)]
        return means
