"""The dVAE as its authors published it: two pickled modules become one network of ours.

The published modules are convolutional ResNets of the structure in appendix A; sizes are read off
the weights, so that one of another size converts as well. Names there: `blocks.group_2.block_1.
res_path.conv_3.w`; here: `encoder.group_2.0.branch.5.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model_zoo.pickled_weights import read_modules

_PACKAGE = "dall_e"
_BLOCK = re.compile(r"group_(\d+)\.block_(\d+)\.(?:(id_path)|res_path\.conv_(\d+))")
_ENDS = {"w": "weight", "b": "bias"}


def read_published(encoder: Path, decoder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by our names, fp32, and the configuration of `model_zoo.dvae` that they fit.

    Raises:
        ValueError: for files that are no such modules, or do not belong together.
    """
    parts = {
        name: read_modules(path, (_PACKAGE,))
        for name, path in (("encoder", encoder), ("decoder", decoder))
    }
    weights: dict[str, Tensor] = {}
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            weights[f"{part}.{_our_name(part, name)}"] = tensor.float()
    return weights, _config(weights)


def _our_name(part: str, name: str) -> str:
    place, _, kind = name.removeprefix("blocks.").rpartition(".")
    if kind in _ENDS:
        if place in {"input", "output.conv"}:
            return f"{place.partition('.')[0]}.{_ENDS[kind]}"
        found = _BLOCK.fullmatch(place)
        if found:
            group, block, path, layer = found.groups()
            inside = "path" if path else f"branch.{2 * int(layer) - 1}"
            return f"group_{group}.{int(block) - 1}.{inside}.{_ENDS[kind]}"
    raise ValueError(f"{part}: {name} is no weight of the published dVAE")


def _config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that are read off the weights' shapes."""
    try:
        stem, last = weights["encoder.input.weight"], weights["encoder.output.weight"]
        first = weights["decoder.input.weight"]
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing: the files are no whole dVAE") from error
    if last.shape[0] != first.shape[1]:
        raise ValueError(
            f"the encoder has {last.shape[0]} codes, the decoder {first.shape[1]}: they do not"
            " belong together"
        )
    width = stem.shape[0]
    groups = _count(weights, r"encoder\.group_(\d+)\.") - 1
    return {
        "vocabulary": last.shape[0], "width": width, "stem_kernel": stem.shape[2],
        "decoder_width": first.shape[0], "blocks": _count(weights, r"encoder\.group_1\.(\d+)\."),
        "multipliers": [
            weights[f"encoder.group_{group}.0.branch.{_last(weights)}.weight"].shape[0] // width
            for group in range(1, groups + 1)
        ],
        "encoder_kernels": _kernels(weights, "encoder"),
        "decoder_kernels": _kernels(weights, "decoder"),
    }  # fmt: skip


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in weights if (found := re.match(pattern, name)))


def _last(weights: Mapping[str, Tensor]) -> int:
    return _count(weights, r"encoder\.group_1\.0\.branch\.(\d+)\.") - 1


def _kernels(weights: Mapping[str, Tensor], part: str) -> list[int]:
    places = range(1, _last(weights) + 1, 2)
    return [weights[f"{part}.group_1.0.branch.{place}.weight"].shape[2] for place in places]
