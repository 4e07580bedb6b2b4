"""Pictures a second for training: prepared as pixels, or decoded from their shards.

    python -m tests.benchmarks.bench_pictures [--pictures 1000] [--side 192] [--crop 128]

Both give the same batches, which is checked. JPEGs of 640x480 with grain, so that they are as large
as photographs; all files are in the page cache. What is compared is processor time on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from infra.work import Work
from model_zoo.crops import CropConfig, PictureFiles
from schemas.artifact import ImageShards
from tasks.prepared import Loading, prepare
from tests.tasks.image_shards import add_samples, make_sample, saved

_BATCH = 64


def main() -> None:
    """Measure both ways, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--crop", type=int, default=128)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Work.local(Path(folder))
        images = _shards(work, asked.pictures)
        size = images.size / asked.pictures / 1e3
        print(f"{size:.0f} kB a picture, side {asked.side}, crop {asked.crop}")
        print("| way | bytes a picture beside the shards | made/s | read/s |")
        print("|---|---|---|---|")
        ways: tuple[Loading, Loading] = ("prepared", "shards")
        batches = [_measure(way, images, asked, work) for way in ways]
        assert torch.equal(*batches), "both ways give the same batches"


def _measure(
    way: Loading, images: ImageShards, asked: argparse.Namespace, work: Work
) -> torch.Tensor:
    began = time.process_time()
    files = prepare(images, asked.side, work, pictures=way)
    made = asked.pictures / (time.process_time() - began)
    beside = sum(path.stat().st_size for path in files if path.suffix != ".tar")
    data = PictureFiles(files, 0, asked.crop, CropConfig())
    order = np.random.default_rng(0).permutation(len(data))
    first = data.batch(order[:_BATCH], 0)["images"]
    began = time.process_time()
    for part in np.array_split(order, len(order) // _BATCH):
        data.batch(part, 1)
    read = len(order) / (time.process_time() - began)
    print(f"| {way} | {beside / asked.pictures:,.0f} | {made:,.0f} | {read:,.0f} |")
    return first


def _shards(work: Work, count: int) -> ImageShards:
    random = np.random.default_rng(0)
    samples = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = random.normal(0, 6, smooth.shape).astype(np.float32)
        picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        samples.append(make_sample(f"{number}", saved(picture, "JPEG", quality=85)))
    return add_samples(work, samples, shards=2)


if __name__ == "__main__":
    main()
