"""Pictures that stay in their WebDataset shards: found by an index, decoded when asked for.

The idea is that of `wids`, which comes with webdataset; not its code, whose readers go through the
whole of a shard each time that they open it, or keep a pickle beside it, know plain headers only,
and whose decoders unpickle members. Here an index is two tensors, made once, by who has checked
that each image lies there as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from model_zoo.pictures import square_pixels

SHARD = ".tar"


class PictureShard:
    """One shard and its index: safetensors with `offsets` and `sizes` int64 [N] of image files in
    the shard, further tensors [N, ...], and `side` in the metadata.

    Raises:
        ValueError: for an index that is none, or not of this shard.
    """

    def __init__(self, shard: Path, index: Path) -> None:
        self.shard, self.name = shard, shard.name
        with safe_open(index, framework="pt") as file:
            metadata = file.metadata() or {}
            self.table = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not {"offsets", "sizes"} <= self.table.keys() or "side" not in metadata:
            raise ValueError(f"{index.name}: no index of pictures; it holds {sorted(self.table)}")
        self.side = int(metadata["side"])
        ends = self.table["offsets"] + self.table["sizes"]
        if int(ends.max()) > shard.stat().st_size:
            raise ValueError(
                f"{index.name}: it has pictures up to byte {int(ends.max())}, but {shard.name} has"
                f" {shard.stat().st_size}; they do not belong together"
            )

    def __len__(self) -> int:
        return len(self.table["offsets"])

    def image(self, row: int) -> Tensor:
        """A picture, uint8 [3, side, side].

        Raises:
            ValueError: if it cannot be decoded, saying where it lies.
        """
        start, size = int(self.table["offsets"][row]), int(self.table["sizes"][row])
        # Opened each time: 10 us, beside milliseconds of decoding, and no more files are open than
        # threads read, however many shards there are.
        file = os.open(self.shard, os.O_RDONLY)
        try:
            content = os.pread(file, size, start)
        finally:
            os.close(file)
        try:
            return torch.from_numpy(square_pixels(content, self.side))
        except ValueError as error:
            raise ValueError(
                f"{self.shard.name}, byte {start}: {error}; drop what cannot be decoded with the"
                " filter `decodable`"
            ) from error
