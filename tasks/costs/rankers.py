"""Training a ranker, or an evaluator, which is one more: in fp32, the only precision it takes."""

from __future__ import annotations

from model_zoo.clip import CLIPConfig
from model_zoo.clip_size import clip_flops
from tasks.costs.figures import PASSES, Figure, Section, rent
from tasks.costs.hardware import Hardware
from tasks.train_ranker import RankerParams


def ranker_training(
    name: str, params: RankerParams, vocabulary: int, hardware: Hardware, utilisation: float
) -> Section:
    """Arithmetic, time and money, on as many GPUs as there are pairs at most.

    Raises:
        ValueError: for a network whose arithmetic is not known in closed form.
    """
    training = params.training
    assert training is not None
    if params.network != "clip":
        raise ValueError(
            f"{name}: network {params.network!r}: its arithmetic is not known in closed form"
            " (known: clip); add it to tasks.costs.rankers"
        )
    config = CLIPConfig.model_validate(params.with_sizes({"text_vocabulary": vocabulary}))
    working, pair = hardware.busy(training.batch_size), PASSES * clip_flops(config)
    step = pair * training.batch_size
    seconds = step / (working.all * working.gpu.fp32 * utilisation)
    figures = [
        Figure("a pair", pair, "FLOP",
               "72 x width² x layers a token, 12 x tokens² x width x layers, of either tower"),
        Figure("a step", step, "FLOP", f"{training.batch_size:,} pairs"),
        Figure("a step takes", seconds, "s",
               f"FLOPs of a step / ({working.all:,} x {working.gpu.fp32 / 1e12:g} TFLOP/s"
               " (fp32, which torch gives matrix products in full) x utilisation)"),
        *rent("the run", seconds * training.steps,
              f"{training.steps:,} steps at the same utilisation", working),
    ]  # fmt: skip
    return Section(f"Training {name}", tuple(figures))
