"""The process that each rank of a training runs: `python -m model_zoo.training.worker RUN.json`.

Started as it is, it is the only process; torchrun starts several. (torchrun takes 3 s of processor
time for itself, so one process does without; the engines do not know the difference.) SIGTERM makes
it write a checkpoint and leave with status 143. It ends at once when the process that started it is
gone, so that nothing writes on behalf of nobody.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from model_zoo.training.config import RunConfig
from model_zoo.training.engine import build_engine
from model_zoo.training.fragments import Blocks
from model_zoo.training.loop import Training
from model_zoo.training.order import Order
from model_zoo.training.precision import check_device, set_precision, set_recompute
from model_zoo.training.processes import Processes
from model_zoo.training.recipe import StartsFromData
from model_zoo.training.saving import write_result
from model_zoo.weights import build_recipe, save_weights

STOPPED = 128 + signal.SIGTERM
_LOOK = 0.2  # seconds between looks at the parent


def main(arguments: list[str]) -> int:
    """Train as a RUN.json says; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m model_zoo.training.worker RUN.json", file=sys.stderr)
        return 2
    leave_with_parent()
    return train(RunConfig.model_validate_json(Path(arguments[0]).read_text()))


def train(run: RunConfig) -> int:
    """Train, and write the network; 0, or 143 if it was told to stop before the end."""
    with Processes(run.machines) as processes:
        training = prepare(run, processes)
        with stopping_at_sigterm(training):
            training.resume()
            if not training.train():
                return STOPPED
            write_network(training)
    return 0


def prepare(run: RunConfig, processes: Processes) -> Training:
    """Network, data, engine: everything before the first update."""
    config = run.training
    check_device(config.precision, processes.device)
    torch.manual_seed(config.seed)  # every process draws the same initial weights
    recipe = build_recipe(run.network, run.config)
    set_precision(recipe.network, config.precision)
    set_recompute(recipe.network, config.recompute)
    dataset = recipe.dataset(run.files, config.seed)
    if isinstance(recipe, StartsFromData):
        recipe.start_from_data(dataset, config.seed)
    order = Order(dataset, config.batch_size, config.seed, processes.rank, processes.size)
    for parameter in recipe.network.parameters():
        # Fragments are runs of a parameter's elements in their own order, whatever the layout. A
        # copy, since `contiguous` leaves odd strides to dimensions of 1, which DeepSpeed refuses.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    blocks = Blocks.find(recipe.network)
    engine = build_engine(recipe, config, processes)
    return Training(run, processes, recipe, engine, order, blocks)


@contextmanager
def stopping_at_sigterm(training: Training) -> Iterator[None]:
    """Turn SIGTERM into a wish that the training grants after its update."""

    def stop(number: int, frame: FrameType | None) -> None:
        training.stopping = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_network(training: Training) -> None:
    """The last thing: the weights, or their average where one is kept, as one file."""
    run = training.run
    folder = run.checkpoints.with_name("result")
    run.output.parent.mkdir(parents=True, exist_ok=True)

    def write(weights: dict[str, Tensor]) -> None:
        save_weights(run.output, weights, run.network, run.config)

    write_result(training.keeper, folder, training.blocks.shapes, write)


def leave_with_parent() -> None:
    """End this process, without a word, when the one that started it has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
