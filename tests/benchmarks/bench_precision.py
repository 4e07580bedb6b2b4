"""The demo's prior, made small, in fp32 and in fp16 with a gradient scale a block: equal curves?

    python -m tests.benchmarks.bench_precision HOME [--updates 120]

HOME is a folder in which `shapes` has run (`.tapir`): its encoded pairs are what is learned. Prints
the losses and writes docs/pictures/fp16-with-scales.png. CPUs emulate fp16, so it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

from infra.manifests import latest
from infra.store import Store
from model_zoo.training.config import RunConfig
from model_zoo.training.worker import train

mpl.use("agg")

import matplotlib.pyplot as plt

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "fp16-with-scales.png"
SMALLER = {"width": 48, "heads": 2, "layers": 2}


def main() -> None:
    """Train twice, print, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--updates", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        curves = {
            precision: learn(options.home, Path(folder) / precision, precision, options.updates)
            for precision in ("fp32", "fp16")
        }
    difference = np.abs(curves["fp16"] / curves["fp32"] - 1)
    ends = ", ".join(f"{name} {curve[-1]:.4f}" for name, curve in curves.items())
    print(f"loss after {options.updates} updates: {ends}")
    print(f"largest relative difference {difference.max():.1e}")
    draw(curves)


def learn(home: Path, folder: Path, precision: str, updates: int) -> np.ndarray:
    """The losses of a training of the demo's prior, made small."""
    folder.mkdir()
    store = Store((home / "store").absolute().as_uri())
    codes, prior = (latest(store, "shapes", stage) for stage in ("codes", "prior"))
    assert codes is not None and prior is not None, "`shapes` has not run here"
    (output,) = codes.outputs.values()
    files = [store.fetch(unit, folder / "codes") for unit in output.units]
    declared = prior.params
    training = {
        **declared["training"], "steps": updates, "warmup": 20, "batch_size": 16,
        "precision": precision, "engine": "deepspeed", "ema": None, "log_every": 1,
        "checkpoint_every": updates,
    }  # fmt: skip
    run = {
        "network": "dalle", "config": {**sizes(files), **declared["config"], **SMALLER},
        "files": [str(path) for path in files], "training": training,
        "checkpoints": str(folder / "checkpoints"), "output": str(folder / "prior.safetensors"),
        "progress": str(folder / "progress.jsonl"),
    }  # fmt: skip
    assert train(RunConfig.model_validate_json(json.dumps(run))) == 0
    lines = (folder / "progress.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def sizes(files: list[Path]) -> dict[str, int]:
    """What the encoded pairs say of a network for them."""
    from safetensors.numpy import load_file

    first = load_file(files[0])
    height, width = first["codes"].shape[2:]
    return {
        "text_vocabulary": int(max(load_file(f)["tokens"].max() for f in files)) + 1,
        "text_length": first["tokens"].shape[1],
        "image_vocabulary": int(max(load_file(f)["codes"].max() for f in files)) + 1,
        "grid_height": height, "grid_width": width,
    }  # fmt: skip


def draw(curves: dict[str, np.ndarray]) -> None:
    """Both curves, one over the other."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    axes.plot(curves["fp32"], color="#2a6f97", linewidth=3, label="fp32")
    axes.plot(curves["fp16"], color="#e07a1f", linewidth=1, label="fp16, a scale a block")
    axes.set_xlabel("update")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
