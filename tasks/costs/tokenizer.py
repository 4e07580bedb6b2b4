"""Training the image tokenizer: in fp32 throughout, so at another rate than the prior.

It has no residual blocks of `model_zoo.training.precision`: no other precision is taken, nothing is
computed again, nothing is compressed, and FSDP2 gathers it whole.
"""

from __future__ import annotations

from model_zoo.dvae_size import ImageTokenizerSize
from model_zoo.sizes import FP32
from model_zoo.training.config import TrainingConfig
from tasks.costs.figures import PASSES, Figure, Section, rent, total
from tasks.costs.hardware import Hardware
from tasks.costs.memory import ALL, Weights, fits, lasting, one_pass, sharding

_DRIVER = 1e9  # bytes that driver and libraries take for themselves, about


def tokenizer_memory(
    size: ImageTokenizerSize, training: TrainingConfig, hardware: Hardware
) -> Section:
    """What `model_zoo.training` holds on a GPU of the first machine."""
    working, used = hardware.busy(training.batch_size), sharding(training)
    share = working.share_of(training.batch_size)
    taken = one_pass(share, training)
    network = Weights(
        size.parameters, 0, 2 * FP32 * size.parameters,
        "8 bytes a parameter: the network is gathered whole, and its gradients",
    )  # fmt: skip
    held = [
        *lasting(network, working, training, used),
        Figure("activations", taken.samples * size.activations, "bytes",
               f"{size.activations / 1e9:.3g} GB a picture: 4 bytes x the inputs of convolutions"
               f" and poolings, and what the loss keeps; pictures: {taken.said}"),
        Figure("gradients of activations", taken.samples * size.passing, "bytes",
               "two of the largest maps of each picture of a pass"),
    ]  # fmt: skip
    figures = [*held, total(ALL, held)]
    a_picture = size.activations + size.passing
    room = hardware.gpu.memory - figures[-1].value + taken.samples * a_picture
    verdict = fits(figures, working)
    if room < taken.samples * a_picture:
        verdict += f"; {_what_fits(share, a_picture, room)}"
    title = f"Memory of a GPU that trains the image tokenizer ({used})"
    return Section(title, tuple(figures), verdict)


def _what_fits(share: int, a_picture: int, room: float) -> str:
    fitting = [n for n in range(1, share + 1)
               if share % n == 0 and n * a_picture < room - _DRIVER]  # fmt: skip
    return f"declare `micro_batch: {fitting[-1]}`" if fitting else "nor does one picture a pass"


def tokenizer_training(
    size: ImageTokenizerSize, training: TrainingConfig, hardware: Hardware, utilisation: float
) -> Section:
    """Arithmetic, time and money, on as many GPUs as there are pictures at most."""
    working, batch = hardware.busy(training.batch_size), training.batch_size
    step = PASSES * size.flops * batch
    seconds = step / (working.all * working.gpu.convolutions * utilisation)
    idle = hardware.all - working.all
    kind = "TF32, as torch computes fp32 convolutions" if working.gpu.bf16 else "fp32"
    figures = [
        Figure("a picture", PASSES * size.flops, "FLOP",
               "6 x inputs x outputs x kernel² x pixels, of every convolution"),
        Figure("a step", step, "FLOP", f"{batch:,} pictures"),
        Figure("GPUs at work", working.all, "GPUs",
               f"{working.share_of(batch):,} pictures each"
               + (f"; {idle:,} stand idle, with which the batch does not divide" if idle else "")),
        Figure("a step takes", seconds, "s",
               f"FLOPs of a step / ({working.all:,} x {working.gpu.convolutions / 1e12:g} TFLOP/s"
               f" ({kind}) x utilisation)"),
        *rent("the run", seconds * training.steps,
              f"{training.steps:,} steps at the same utilisation", working),
    ]  # fmt: skip
    return Section("Training the image tokenizer", tuple(figures))
