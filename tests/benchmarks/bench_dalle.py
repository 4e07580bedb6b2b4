"""The transformer beside dalle-pytorch: training, sampling; and blocked attention beside masked.

    python tests/benchmarks/bench_dalle.py [train] [memory] [sample] [attention] [--peer DIR]

Width 256, 8 layers, 4 heads of 64, 64 caption tokens and 16x16 codes, both vocabularies 1,024, on
two threads of a CPU. dalle-pytorch is no dependency; DIR is where it was installed on its own:

    pip install --no-deps --target DIR dalle-pytorch axial_positional_embedding g-mlp-pytorch \\
        rotary-embedding-torch einops

Ours is timed in turns with the peer, since machines are noisy; the medians are printed. Attention
is measured at the paper's 256 + 1,024 positions.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from model_zoo.attention import MaskedAttention  # noqa: E402
from model_zoo.dalle import DalleConfig, DalleRecipe  # noqa: E402
from model_zoo.masks import Kind  # noqa: E402
from model_zoo.sampler import sample  # noqa: E402
from model_zoo.training.config import TrainingConfig  # noqa: E402
from model_zoo.training.optimizer import build_optimizer  # noqa: E402
from model_zoo.training.precision import set_precision  # noqa: E402

WIDTH, LAYERS, HEADS, TEXT, SIDE, VOCABULARY, BATCH = 256, 8, 4, 64, 16, 1024, 4
POSITIONS = TEXT + SIDE * SIDE
KINDS: tuple[Kind, ...] = ("row", "column", "convolutional")
HOWS = ("blocked", "masked", "dense")  # by parts, by the flash kernel under a mask, all scores
ATTENTIONS = {f"{kind}, {how}": (kind, how) for kind in KINDS for how in HOWS}
RUNS = 7
_KEPT = str(2**32)  # bytes

Run = Callable[[], object]


def main() -> None:
    """Measure what was asked for; everything, if nothing was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*WHAT, []])
    parser.add_argument("--peer", type=Path, help="folder that dalle-pytorch was installed into")
    options = parser.parse_args()
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != _KEPT:
        # As the stages start their trainings: memory is kept, not given back after each product.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = _KEPT
        os.execv(sys.executable, [sys.executable, *sys.argv])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for what in options.what or WHAT:
        print(f"\n{what}", flush=True)
        WHAT[what](options.peer)


def train(peer: Path | None) -> None:
    """Tokens a second of whole updates, and the share of the machine's matrix rate."""
    runs: dict[str, Run] = {}
    flops: dict[str, int] = {}
    for name in _names(peer):
        runs[name], flops[name] = _training(name, peer)
    peak = _matrix_rate()
    print(f"matrix product in fp32: {peak / 1e9:.0f} GFLOP/s")
    times = _in_turns(runs)
    for name, seconds in times.items():
        rate = flops[name] / seconds
        print(
            f"{name:14} {seconds * 1e3:6.0f} ms, {BATCH * POSITIONS / seconds:6.0f} tokens/s"
            f"{_ratio(times, name)}, {rate / peak:.0%} of the fp32 matrix rate"
        )


def memory(peer: Path | None) -> None:
    """What updates, and sparse layers, add to the most that a fresh process holds."""
    for name in [*_names(peer), *ATTENTIONS]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, most = pool.apply(_peak, (name, peer))
        print(f"{name:22} {most / 1e6:5.0f} MB, {(most - before) / 1e6:5.0f} of them for this")


def _peak(name: str, peer: Path | None) -> tuple[int, int]:
    """Bytes held before the first time, and the most during five."""
    torch.set_num_threads(2)
    run = _attending(*ATTENTIONS[name]) if name in ATTENTIONS else _training(name, peer)[0]
    before = psutil.Process().memory_info().rss
    for _ in range(5):
        run()
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _names(peer: Path | None) -> list[str]:
    return ["ours, fp32", "ours, bf16", *(["dalle-pytorch"] if peer else [])]


def _training(name: str, peer: Path | None) -> tuple[Run, int]:
    """One update of a network, and its operations in matrix products."""
    tokens = torch.randint(1, VOCABULARY, (BATCH, TEXT))
    codes = torch.randint(0, VOCABULARY, (BATCH, SIDE * SIDE))
    if name == "dalle-pytorch":
        assert peer is not None
        network = _peer(peer)
        return _peer_update(network, tokens, codes), _matrix_flops(network)
    recipe = _recipe()
    set_precision(recipe.network, "bf16" if name.endswith("bf16") else "fp32")
    return _update(recipe, {"tokens": tokens, "codes": codes}), _matrix_flops(recipe.network)


def draw(peer: Path | None) -> None:
    """Seconds for four pictures of four prompts, and pictures a second of many of one prompt."""
    network = _recipe().network.eval()
    tokens = torch.randint(1, VOCABULARY, (BATCH, TEXT))
    seeds = torch.arange(BATCH)[:, None]
    runs: dict[str, Run] = {"ours": lambda: _on_one_thread(lambda: sample(network, tokens, seeds))}
    if peer:
        other = _peer(peer).eval()
        runs["dalle-pytorch"] = lambda: other.generate_images(tokens, use_cache=True)
        _mend_cache(other)
    times = _in_turns(runs, 3)
    for name, seconds in times.items():
        print(f"{name:14} four pictures in {seconds:.2f} s{_ratio(times, name)}")
    rates = []
    for number in (1, 64):
        candidates = torch.arange(number)[None]
        run = partial(sample, network, tokens[:1], candidates)
        rates.append(_in_turns({"": partial(_on_one_thread, run)}, 3)[""])
    one, many = rates
    print(
        f"one: {1 / one:.2f} pictures/s; 64 of one prompt: {64 / many:.2f} ({64 * one / many:.1f})"
    )


def attention(peer: Path | None) -> None:
    """Forward and backward of one layer's attention, blocked and under a dense mask."""
    del peer
    for kind in KINDS:
        runs = {how: _attending(kind, how) for how in HOWS}
        times = _in_turns(runs)
        told = [f"{how} {seconds * 1e3:5.0f} ms" for how, seconds in times.items()]
        ratios = [f"{times[how] / times['blocked']:.2f} x" for how in HOWS[1:]]
        print(f"{kind:14} {', '.join(told)} ({', '.join(ratios)})")


def _attending(kind: Kind, how: str) -> Run:
    x = [torch.randn(1, 16, 256 + 1024, 64, requires_grad=True) for _ in range(3)]
    layer = MaskedAttention(kind, 257, 32, 32, 11)
    if how == "blocked":
        return lambda: _there_and_back(layer(*x), x)
    dense = torch.zeros(layer.mask.shape).masked_fill(~layer.mask, -torch.inf)
    backend = SDPBackend.MATH if how == "dense" else SDPBackend.FLASH_ATTENTION

    def run() -> None:
        with sdpa_kernel(backend):
            _there_and_back(F.scaled_dot_product_attention(*x, attn_mask=dense), x)

    return run


def _on_one_thread(run: Run) -> object:
    """As the stages sample; two threads wait for one another at every small product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run()
    finally:
        torch.set_num_threads(threads)


def _there_and_back(out: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.autograd.grad(out, inputs, torch.ones_like(out))


def _recipe() -> DalleRecipe:
    config = DalleConfig(
        text_vocabulary=VOCABULARY, text_length=TEXT, image_vocabulary=VOCABULARY,
        grid_height=SIDE, grid_width=SIDE, width=WIDTH, heads=HEADS, layers=LAYERS, conv_kernel=5,
    )  # fmt: skip
    return DalleRecipe(config)


def _update(recipe: DalleRecipe, batch: dict[str, torch.Tensor]) -> Run:
    training = TrainingConfig(steps=1, batch_size=BATCH, learning_rate=1e-4, engine="torch")
    optimizer = build_optimizer(recipe, training)
    generator = torch.Generator()

    def run() -> None:
        recipe.loss(batch, 0, generator)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _peer(folder: Path) -> Any:
    """dalle-pytorch's network; what it imports for pretrained autoencoders is not used here."""
    sys.path.append(str(folder))
    for name in ("taming", "taming.models", "taming.models.vqgan", "dall_e", "omegaconf"):
        sys.modules.setdefault(name, MagicMock())
    version = types.ModuleType("pkg_resources")
    version.get_distribution = MagicMock()  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", version)
    peer = importlib.import_module("dalle_pytorch")
    vae = peer.DiscreteVAE(
        image_size=4 * SIDE, num_layers=2, num_tokens=VOCABULARY, codebook_dim=16, hidden_dim=16
    )
    return peer.DALLE(
        dim=WIDTH, vae=vae, num_text_tokens=VOCABULARY, text_seq_len=TEXT, depth=LAYERS,
        heads=HEADS, dim_head=WIDTH // HEADS,
    )  # fmt: skip


def _peer_update(network: Any, tokens: torch.Tensor, codes: torch.Tensor) -> Run:
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)

    def run() -> None:
        network(tokens, codes, return_loss=True).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _mend_cache(network: Any) -> None:
    """Without guidance its own cache is not passed on: hand it over."""

    def forward(*args: Any, cond_scale: float = 1, cache: Any = None, **kwargs: Any) -> Any:
        return network(*args, cache=cache, **kwargs)

    network.forward_with_cond_scale = forward


def _matrix_flops(network: torch.nn.Module) -> int:
    """Of one update: 6 a weight and token in the blocks, and in the output matrices that are used
    (the peer's serves both vocabularies at every position)."""
    weights = 0
    for name, p in network.named_parameters():
        if p.ndim == 2 and p.requires_grad and "emb" not in name and name not in ("row", "column"):
            share = 1.0
            if name.startswith("text_head"):
                share = TEXT / POSITIONS
            elif name.startswith("image_head"):
                share = SIDE * SIDE / POSITIONS
            weights += int(p.numel() * share) if p.shape[0] > SIDE else 0
    return 6 * weights * BATCH * POSITIONS


def _matrix_rate() -> float:
    a, b = torch.randn(1280, 1024), torch.randn(1024, 1024)
    seconds = _in_turns({"": lambda: a @ b}, 30)[""]
    return 2 * 1280 * 1024 * 1024 / seconds


def _in_turns(runs: dict[str, Run], times: int = RUNS) -> dict[str, float]:
    """The median seconds of each, all of them taking turns, after one of each that is not timed."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(times + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _ratio(times: dict[str, float], name: str) -> str:
    peer = times.get("dalle-pytorch")
    return f" ({peer / times[name]:.2f} x)" if peer else ""


WHAT = {"train": train, "memory": memory, "sample": draw, "attention": attention}

if __name__ == "__main__":
    main()
