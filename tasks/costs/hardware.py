"""GPUs that can be rented, and how many of them a run has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.pipeline import nearest

GIB = 2**30


@dataclass(frozen=True)
class GpuKind:
    """A kind of GPU; rates are those of dense products a second, as its maker states them."""

    flops: float
    """In 16 bits."""
    convolutions: float
    """In fp32: as TF32 where there is that, since torch lets cuDNN use it."""
    fp32: float
    """Of matrix products in fp32, which torch leaves as they are."""
    memory: int  # bytes
    price: float
    """US dollars an hour that are assumed when none is given: an order of magnitude, no offer."""
    bf16: bool = True
    """Whether it has bf16, and so TF32: both came with the same generation."""


GPUS = {
    "v100_16gb": GpuKind(125e12, 15.7e12, 15.7e12, 16 * GIB, 1.0, bf16=False),
    "v100_32gb": GpuKind(125e12, 15.7e12, 15.7e12, 32 * GIB, 1.2, bf16=False),
    "a100_40gb": GpuKind(312e12, 156e12, 19.5e12, 40 * GIB, 1.5),
    "a100_80gb": GpuKind(312e12, 156e12, 19.5e12, 80 * GIB, 2.0),
    "h100": GpuKind(989e12, 494e12, 67e12, 80 * GIB, 3.0),
    "h200": GpuKind(989e12, 494e12, 67e12, 140 * GIB, 3.5),
    "b200": GpuKind(2250e12, 1125e12, 75e12, 179 * GIB, 5.0),
}


@dataclass(frozen=True)
class Hardware:
    """Machines of GPUs, all of one kind."""

    kind: str = "a100_80gb"
    machines: int = 1
    gpus: int = 8
    """Of one machine."""
    price: float | None = None
    """US dollars an hour of one GPU, instead of the assumed price of its kind."""

    def __post_init__(self) -> None:
        if self.kind not in GPUS:
            raise ValueError(f"gpu: there is no kind {self.kind!r}; {nearest(self.kind, GPUS)}")

    @property
    def gpu(self) -> GpuKind:
        """What one GPU can do."""
        return GPUS[self.kind]

    @property
    def all(self) -> int:
        """GPUs in all."""
        return self.machines * self.gpus

    @property
    def hour(self) -> float:
        """US dollars for an hour of one GPU."""
        return self.gpu.price if self.price is None else self.price

    def busy(self, batch: int) -> Hardware:
        """As many machines, all of their GPUs if that is possible, as a batch divides among.

        Every GPU has at least one sample; the others would stand idle.
        """
        machines = [one for one in range(1, self.machines + 1) if batch % (one * self.gpus) == 0]
        if machines:
            return replace(self, machines=machines[-1])
        gpus = max(one for one in range(1, self.gpus + 1) if batch % one == 0)
        return replace(self, machines=1, gpus=gpus)

    def share_of(self, batch: int) -> int:
        """Samples of a batch that each GPU computes.

        Raises:
            ValueError: if the batch does not divide.
        """
        if batch % self.all:
            raise ValueError(
                f"batch: {batch} samples do not divide among {self.machines} x {self.gpus} GPUs;"
                f" take a multiple of {self.all}"
            )
        return batch // self.all
