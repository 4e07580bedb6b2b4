"""A gradient scale a block beside the best single one, in a deep stack: a table and a picture.

    python tests/benchmarks/bench_scales.py [--blocks 64] [--picture docs/pictures/….png]

The stack is that of `tests/model_zoo/training/deep.py`: the true gradients (fp32) of its residual
blocks span 2^-5 to 2^-40. An error is relative to the block's own gradient.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.model_zoo.training.deep import (  # noqa: E402
    Deep,
    Gradients,
    errors,
    largest,
    mean_error,
)

PICTURE = ROOT / "docs/pictures/gradient-scales.png"
SHOWN = 9  # blocks in the table
NORMAL, LEAST = -14, -24  # fp16: the exponents of its smallest normal number and of its smallest
SINGLE, OWN, TRUE = "#c44e52", "#2a6f97", "#555555"


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deep = Deep(options.blocks)
    true = deep.true()
    scale, single = deep.best_single()
    scales, own = deep.by_block()
    _print(true, scale, single, scales, own)
    _draw(options.picture, true, scale, single, scales, own)


def _print(
    true: Gradients, scale: float, single: Gradients, scales: dict[str, float], own: Gradients
) -> None:
    one, each = errors(single, true), errors(own, true)
    print("| block | largest gradient | error, one scale | its own scale | error |")
    print("|---:|---:|---:|---:|---:|")
    powers, used = largest(true), list(scales.values())
    for number in range(0, len(true), max(1, (len(true) - 1) // (SHOWN - 1))):
        print(
            f"| {number} | 2^{powers[number]:.0f} | {one[number]:.2g}"
            f" | 2^{math.log2(used[number]):.1f} | {each[number]:.2g} |"
        )
    ratio = mean_error(one) / mean_error(each)
    print(
        f"over all blocks (root mean square): {mean_error(one):.2g} with 2^{math.log2(scale):.0f},"
        f" the best single scale; {mean_error(each):.2g} with a scale a block: {ratio:.1f} times"
        " less"
    )


def _draw(
    path: Path, true: Gradients, scale: float, single: Gradients, scales: dict[str, float],
    own: Gradients,
) -> None:  # fmt: skip
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    powers, numbers = largest(true), range(len(true))
    one_scale = math.log2(scale)
    moved = [p + math.log2(s) for p, s in zip(powers, scales.values(), strict=True)]
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(8, 6.4), layout="constrained", height_ratios=(3, 2)
    )
    above.axhspan(LEAST, NORMAL, color="0.9", lw=0)
    above.axhspan(-44, LEAST, color="0.75", lw=0)
    above.text(0, (NORMAL + LEAST) / 2, " fp16 loses digits", va="center", color="0.35")
    above.text(0, (LEAST - 44) / 2, " zero in fp16", va="center", color="0.25")
    above.plot(numbers, powers, color=TRUE, ls="--", label="true gradient (fp32)")
    above.plot(numbers, [p + one_scale for p in powers], color=SINGLE,
               label=f"times one scale for all, $2^{{{one_scale:.0f}}}$: the best")  # fmt: skip
    above.plot(numbers, moved, color=OWN, label="times the block's own scale")
    above.set(ylabel="largest number of a block, log2", ylim=(-44, 20))
    above.legend(loc="upper right", frameon=False)
    for gradients, colour, whose in ((single, SINGLE, "one scale"), (own, OWN, "own scales")):
        found = errors(gradients, true)
        label = f"{whose}: root mean square {mean_error(found):.2g}"
        below.semilogy(numbers, found, color=colour, label=label)
    below.legend(loc="upper left", frameon=False)
    below.set(ylabel="relative error of the gradient", xlabel="residual block")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(path)


if __name__ == "__main__":
    main()
